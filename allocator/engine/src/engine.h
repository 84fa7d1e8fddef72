/* Shared by the C kernels of the exact engine. Arrays come through the buffer protocol, which the limited API has
 * from Python 3.11 on: one binary serves every later one. Every kernel releases the GIL while it runs. */
#ifndef ALLOCATOR_ENGINE_H
#define ALLOCATOR_ENGINE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__gnu_linux__)
/* One binary for all x86-64 machines: the loader picks the clone for vectors of 256 bits where there are any. */
#define VECTORISED __attribute__((target_clones("avx2", "default")))
#else
#define VECTORISED
#endif

PyObject *several_search(PyObject *self, PyObject *args);
PyObject *several_stair(PyObject *self, PyObject *args);
PyObject *several_through(PyObject *self, PyObject *args);
PyObject *several_table(PyObject *self, PyObject *args);

PyObject *quadratic_search(PyObject *self, PyObject *args);
PyObject *quadratic_anneal(PyObject *self, PyObject *args);
PyObject *quadratic_relax(PyObject *self, PyObject *args);
PyObject *quadratic_tree(PyObject *self, PyObject *args);

/* Seconds on a clock that never goes back. */
double now_seconds(void);

PyObject *native_chain(PyObject *self, PyObject *args);
PyObject *native_single(PyObject *self, PyObject *args);
/* hull.c */
PyObject *hull_count(PyObject *module, PyObject *args);
PyObject *hull_order(PyObject *module, PyObject *args);
PyObject *hull_walk(PyObject *module, PyObject *args);
/* codes_*.c, for the applier */
PyObject *codes_pack(PyObject *module, PyObject *args);
PyObject *codes_unpack(PyObject *module, PyObject *args);
PyObject *codes_encode(PyObject *module, PyObject *args);
PyObject *codes_ranges(PyObject *module, PyObject *args);
PyObject *codes_sizes(PyObject *module, PyObject *args);
PyObject *codes_decode(PyObject *module, PyObject *args);

#endif
