package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"banger/internal/vm"
)

// PutImage commits an image under its name, replacing what had the name.
func (s *Store) PutImage(ctx context.Context, i vm.Image) error {
	return s.insertImage(ctx, i, `ON CONFLICT (name) DO UPDATE SET digest=excluded.digest, size=excluded.size, created_at=excluded.created_at,
		init=excluded.init, env=excluded.env, source=excluded.source`)
}

// AddImage commits an image under a name that none has; CodeExists when one has it.
func (s *Store) AddImage(ctx context.Context, i vm.Image) error {
	err := s.insertImage(ctx, i, "")
	if isUnique(err) {
		return vm.Errorf(vm.CodeExists, "an image named %s exists", i.Name)
	}
	return err
}

func (s *Store) insertImage(ctx context.Context, i vm.Image, otherwise string) error {
	env, err := json.Marshal(i.Env)
	if err != nil {
		return fmt.Errorf("encode the environment of image %s: %w", i.Name, err)
	}
	return s.tx(ctx, "put an image in", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO images (name, digest, size, created_at, init, env, source) VALUES (?,?,?,?,?,?,?) `+otherwise,
			i.Name, i.Digest, i.Size, formatTime(i.CreatedAt), i.Init, string(env), i.Source)
		return err
	})
}

// Images reads all images by name.
func (s *Store) Images(ctx context.Context) ([]vm.Image, error) {
	return s.queryImages(ctx, `ORDER BY name`)
}

// ImageByName reads one image; CodeNotFound when there is none.
func (s *Store) ImageByName(ctx context.Context, name string) (vm.Image, error) {
	none := vm.Errorf(vm.CodeNotFound, "no image named %q", name)
	i, err := one(s.queryImages(ctx, `WHERE name = ?`, name))(none)
	if errors.Is(err, none) {
		return i, none.WithHint("%sbanger image list shows all", meant(s.nearest(ctx, `SELECT name FROM images ORDER BY name`, name)))
	}
	return i, err
}

// ImageByDigest reads one image; CodeNotFound when there is none.
func (s *Store) ImageByDigest(ctx context.Context, digest string) (vm.Image, error) {
	return one(s.queryImages(ctx, `WHERE digest = ?`, digest))(vm.Errorf(vm.CodeNotFound, "no image %s", digest))
}

func (s *Store) queryImages(ctx context.Context, where string, args ...any) ([]vm.Image, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT name, digest, size, created_at, init, env, source FROM images `+where, args...)
	if err != nil {
		return nil, s.explain("read images from", err)
	}
	defer func() { _ = rows.Close() }()
	out := []vm.Image{}
	for rows.Next() {
		var i vm.Image
		var created, env string
		if err := rows.Scan(&i.Name, &i.Digest, &i.Size, &created, &i.Init, &env, &i.Source); err != nil {
			return nil, s.explain("read images from", err)
		}
		t, terr := parseTime(created)
		i.CreatedAt = t
		if err := errors.Join(terr, json.Unmarshal([]byte(env), &i.Env)); err != nil {
			return nil, fmt.Errorf("row of image %s: %w", i.Name, err)
		}
		out = append(out, i)
	}
	if err := rows.Err(); err != nil {
		return nil, s.explain("read images from", err)
	}
	return out, nil
}

// PutKernel commits a kernel under its name, replacing what had the name.
func (s *Store) PutKernel(ctx context.Context, k vm.Kernel) error {
	return s.insertKernel(ctx, k, `ON CONFLICT (name) DO UPDATE SET digest=excluded.digest, release=excluded.release, version=excluded.version,
		size=excluded.size, created_at=excluded.created_at, source=excluded.source`)
}

// AddKernel commits a kernel under a name that none has; CodeExists when one has it.
func (s *Store) AddKernel(ctx context.Context, k vm.Kernel) error {
	err := s.insertKernel(ctx, k, "")
	if isUnique(err) {
		return vm.Errorf(vm.CodeExists, "a kernel named %s exists", k.Name)
	}
	return err
}

func (s *Store) insertKernel(ctx context.Context, k vm.Kernel, otherwise string) error {
	return s.tx(ctx, "put a kernel in", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO kernels (name, digest, release, version, size, created_at, source) VALUES (?,?,?,?,?,?,?) `+otherwise,
			k.Name, k.Digest, k.Release, k.Version, k.Size, formatTime(k.CreatedAt), k.Source)
		return err
	})
}

// Kernels reads all kernels by name.
func (s *Store) Kernels(ctx context.Context) ([]vm.Kernel, error) {
	return s.queryKernels(ctx, `ORDER BY name`)
}

// KernelByName reads one kernel; CodeNotFound when there is none.
func (s *Store) KernelByName(ctx context.Context, name string) (vm.Kernel, error) {
	none := vm.Errorf(vm.CodeNotFound, "no kernel named %q", name)
	k, err := one(s.queryKernels(ctx, `WHERE name = ?`, name))(none)
	if errors.Is(err, none) {
		return k, none.WithHint("%sbanger kernel list shows all", meant(s.nearest(ctx, `SELECT name FROM kernels ORDER BY name`, name)))
	}
	return k, err
}

// KernelByDigest reads one kernel; CodeNotFound when there is none.
func (s *Store) KernelByDigest(ctx context.Context, digest string) (vm.Kernel, error) {
	return one(s.queryKernels(ctx, `WHERE digest = ?`, digest))(vm.Errorf(vm.CodeNotFound, "no kernel %s", digest))
}

func (s *Store) queryKernels(ctx context.Context, where string, args ...any) ([]vm.Kernel, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT name, digest, release, version, size, created_at, source FROM kernels `+where, args...)
	if err != nil {
		return nil, s.explain("read kernels from", err)
	}
	defer func() { _ = rows.Close() }()
	out := []vm.Kernel{}
	for rows.Next() {
		var k vm.Kernel
		var created string
		if err := rows.Scan(&k.Name, &k.Digest, &k.Release, &k.Version, &k.Size, &created, &k.Source); err != nil {
			return nil, s.explain("read kernels from", err)
		}
		if k.CreatedAt, err = parseTime(created); err != nil {
			return nil, fmt.Errorf("row of kernel %s: %w", k.Name, err)
		}
		out = append(out, k)
	}
	if err := rows.Err(); err != nil {
		return nil, s.explain("read kernels from", err)
	}
	return out, nil
}

// one narrows a query's answer to its first row, or the given error when it has none.
func one[T any](rows []T, err error) func(none error) (T, error) {
	return func(none error) (T, error) {
		var zero T
		switch {
		case err != nil:
			return zero, err
		case len(rows) == 0:
			return zero, none
		}
		return rows[0], nil
	}
}

// PinnedImages lists the digests of the images that VMs were made from, whatever their names stand for now.
func (s *Store) PinnedImages(ctx context.Context) ([]string, error) {
	return s.queryStrings(ctx, `SELECT DISTINCT image_digest FROM vms`)
}

// PinnedKernels lists the digests of the kernels that VMs boot, whatever their names stand for now.
func (s *Store) PinnedKernels(ctx context.Context) ([]string, error) {
	return s.queryStrings(ctx, `SELECT DISTINCT kernel_digest FROM vms`)
}

func (s *Store) queryStrings(ctx context.Context, query string, args ...any) ([]string, error) {
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, s.explain("read", err)
	}
	defer func() { _ = rows.Close() }()
	var out []string
	for rows.Next() {
		var v string
		if err := rows.Scan(&v); err != nil {
			return nil, s.explain("read", err)
		}
		out = append(out, v)
	}
	if err := rows.Err(); err != nil {
		return nil, s.explain("read", err)
	}
	return out, nil
}
