-- Digests of images and kernels whose directory may be there without a name: it is about to get one, or has lost its last. Only
-- what stands here is deleted at a daemon's start: a directory of which neither this nor a name tells was made under a newer
-- database, in place of which this one was restored.
CREATE TABLE unnamed (
    kind   TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (kind, digest)
) STRICT;
INSERT INTO unnamed SELECT DISTINCT 'image', image_digest FROM vms WHERE image_digest NOT IN (SELECT digest FROM images);
INSERT INTO unnamed SELECT DISTINCT 'kernel', kernel_digest FROM vms WHERE kernel_digest NOT IN (SELECT digest FROM kernels);

CREATE TRIGGER image_named AFTER INSERT ON images BEGIN
    DELETE FROM unnamed WHERE kind = 'image' AND digest = NEW.digest;
END;
CREATE TRIGGER image_moved AFTER UPDATE OF digest ON images BEGIN
    INSERT OR IGNORE INTO unnamed SELECT 'image', OLD.digest WHERE OLD.digest NOT IN (SELECT digest FROM images);
    DELETE FROM unnamed WHERE kind = 'image' AND digest = NEW.digest;
END;
CREATE TRIGGER image_unnamed AFTER DELETE ON images BEGIN
    INSERT OR IGNORE INTO unnamed SELECT 'image', OLD.digest WHERE OLD.digest NOT IN (SELECT digest FROM images);
END;
CREATE TRIGGER kernel_named AFTER INSERT ON kernels BEGIN
    DELETE FROM unnamed WHERE kind = 'kernel' AND digest = NEW.digest;
END;
CREATE TRIGGER kernel_moved AFTER UPDATE OF digest ON kernels BEGIN
    INSERT OR IGNORE INTO unnamed SELECT 'kernel', OLD.digest WHERE OLD.digest NOT IN (SELECT digest FROM kernels);
    DELETE FROM unnamed WHERE kind = 'kernel' AND digest = NEW.digest;
END;
CREATE TRIGGER kernel_unnamed AFTER DELETE ON kernels BEGIN
    INSERT OR IGNORE INTO unnamed SELECT 'kernel', OLD.digest WHERE OLD.digest NOT IN (SELECT digest FROM kernels);
END;
