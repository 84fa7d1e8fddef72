/* Branch and bound on a convex minorant: the frame that quadratic_tree.py fills, and one level of the search. */
#ifndef ALLOCATOR_QUADRATIC_TREE_H
#define ALLOCATOR_QUADRATIC_TREE_H

#include <stdint.h>

/* q·x + ½ xᵀMx + Σ pairs N + Σ_s room_s·(ν_s·x): the loss at every allocation, room = limit − c·x ≥ 0. */
typedef struct {
    int64_t groups, choices, sides, most, sweeps; /* G, m, S; nodes and sweeps for each, at most */
    const int64_t *start, *group;                 /* [G + 1], [m] */
    const double *linear;                         /* q [m] */
    const double *curved;                         /* M [m, m], PSD where every group sums to a constant */
    const double *apart;                          /* N [m, m] ≥ 0 */
    const double *column;                         /* c [S, m] */
    const double *limit;                          /* [S] */
    const double *spare;                          /* ν [S, m] ≥ 0 */
    const double *options;                        /* closeness, seconds, step of the multipliers, least gain */
    double *worth;                                /* [1] of the best allocation known */
    int64_t *taken;                               /* [G]: a better one that was found */
    double *begin;                                /* [m] point in, point at the root out */
    char *left;                                   /* [m] choices that the root leaves */
    int64_t *parent, *branch;                     /* [most] records: the one above, and the row taken there or −1 */
    double *point, *price, *bound;                /* [most, m], [most, S], [most] */
    int64_t *leaf, most_leaves;                   /* [most_leaves, G]: allocations that bounds do not exclude */
    int64_t *counts;                              /* records, nodes, 1 closed 0 not, 1 found better, leaves */
    double *lowest;                               /* [1]: bound of what is open */
} tree_t;

typedef struct {
    char *alive;              /* [m] */
    double *y, *my, *fixed_n; /* [m]: point, M y, Σ N over the fixed groups */
    double *paid, *dual;      /* [S]: Σ ν over the fixed groups, multipliers ≥ 0 of the augmented Lagrangian */
    char *is_fixed;           /* [G] */
    double bound;
    int64_t record, *child, children, next;
} level_t;

typedef struct {
    const tree_t *t;
    level_t *levels;
    double *cost, *use, *price; /* [m] gradient, [S], [S] */
    double deadline;
    void *memory;
} search_t;

double target_of(const search_t *s);
void settle(search_t *s, level_t *v);                 /* fix groups with one choice left; 0 mass on dead choices */
void sweep(search_t *s, level_t *v, int64_t count);   /* coordinate descent over the groups */
double bound_at(search_t *s, level_t *v);             /* Lagrangian bound of the tangent at y; prices, gradient left */
int64_t exclude(search_t *s, level_t *v, double room); /* choices that cannot be better; −1: a group is empty */

#endif
