/* The frame that several_search.py fills: 64-bit fields, in this order. */
#ifndef ALLOCATOR_SEVERAL_H
#define ALLOCATOR_SEVERAL_H
#include <stdint.h>

/* One row kept in integers (several_stairs.py): the best of the groups from each depth on, by steps left. */
typedef struct {
    int64_t row, sign, divisor, limit, width;
    const double *column; /* [n] */
    const double *table;  /* [D + 1, width + 1] */
} stair_t;

typedef struct {
    int64_t depth, vectors, rows, points, table_depth, leaf; /* D, K, R; of the table: points, its depth, bucket */
    const int64_t *indptr;                                   /* [D + 1] */
    const double *reduced;                                   /* [n, K] */
    const double *value;                                     /* [n] */
    const int64_t *use;                                      /* [n, R] */
    const int64_t *least, *most;                             /* [D + 1, R]: of the groups from each depth on */
    const int64_t *hi, *lo;                                  /* [R] */
    int64_t *position;                                       /* [D + 1]: next choice to try at each depth */
    double *bound;                                           /* [D + 1, K] */
    double *total;                                           /* [D + 1] */
    int64_t *used;                                           /* [D + 1, R] */
    int64_t *state;                                          /* depth, nodes, nodes to stop at, choice found */
    double *real;                                            /* target, deadline */
    double *point_paid;                                      /* [points] */
    int64_t *point_use;                                      /* [points, R] */
    double *box_paid;                                        /* [boxes] */
    int64_t *box_least, *box_most;                           /* [boxes, R] */
    const double *price;                                     /* [R]: the first vector */
    int64_t stairs;                                          /* S */
    const stair_t *stair;                                    /* [S] */
    double *stair_bound;                                     /* [D + 1, S]: priced value of what is taken */
} frame_t;

int completes(const frame_t *f, double bound, const int64_t *used, double target);
#endif
