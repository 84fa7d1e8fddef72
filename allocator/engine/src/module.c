/* The extension module `allocator.engine._native`: a table of the kernels. */
#include "engine.h"
#include <time.h>

double now_seconds(void)
{
#if defined(CLOCK_MONOTONIC)
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
#else
    return (double)clock() / CLOCKS_PER_SEC;
#endif
}

static PyMethodDef methods[] = {
    {"single", native_single, METH_VARARGS, "One budget: see allocator/engine/single.py."},
    {"hull_count", hull_count, METH_VARARGS, "Cheapest choice of each group, and how many hull edges there are."},
    {"hull_order", hull_order, METH_VARARGS, "All hull edges by falling slope."},
    {"hull_walk", hull_walk, METH_VARARGS, "Running cost of the moves, and what each takes off the value."},
    {"several_search", several_search, METH_VARARGS, "Depth-first search under several budgets; frame in, status out."},
    {"several_stair", several_stair, METH_VARARGS, "Dynamic programme of one row in integers, from the back."},
    {"several_through", several_through, METH_VARARGS, "The same from both ends: the bound through each choice."},
    {"several_table", several_table, METH_VARARGS, "Orders a table of completions as a k-d tree; frame in."},
    {"quadratic_search", quadratic_search, METH_VARARGS, "Local search with interactions; frame in, rows out."},
    {"quadratic_anneal", quadratic_anneal, METH_VARARGS, "Annealing with prices of the rows; frame in, rows out."},
    {"quadratic_relax", quadratic_relax, METH_VARARGS, "Descent over parts of choices; frame in, parts out."},
    {"quadratic_tree", quadratic_tree, METH_VARARGS, "Branch and bound on a convex minorant; frame in."},
    {"chain", native_chain, METH_VARARGS, "Stages in a chain under one budget; frame in, status out."},
    {"codes_pack", codes_pack, METH_VARARGS, "Codes to their stream of bits: see allocator/applier/kernels.py."},
    {"codes_unpack", codes_unpack, METH_VARARGS, "A stream of bits to its codes."},
    {"codes_encode", codes_encode, METH_VARARGS, "Weights and scales to the stream of the codes."},
    {"codes_ranges", codes_ranges, METH_VARARGS, "Least and largest weight of those that share a scale."},
    {"codes_sizes", codes_sizes, METH_VARARGS, "Sum of the sizes of the weights that share a scale."},
    {"codes_decode", codes_decode, METH_VARARGS, "A stream of codes to weights, all of them or some rows."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_native", "C kernels of the exact engine; addresses in, numbers out.", -1, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModule_Create(&definition);
}
