/* One budget: what the call, the core and the many-groups path share. */
#ifndef ALLOCATOR_ENGINE_SINGLE_H
#define ALLOCATOR_ENGINE_SINGLE_H

#include "core.h"

enum { MANY = 32768 }; /* groups from which on a sample and a bracket come first */
enum { BLOCK = 4096 }; /* items whose prices stay in the nearest cache */

typedef struct {
    const Core *core;
    int64_t capacity;
    Limits limits;
    double scale;
    int64_t *taken;    /* [groups] items: the result */
    const int64_t *start; /* [groups] items known to keep the capacity, or NULL */
    double multiplier, offset;
    int64_t divisor, passes, open;
    Listed listed;
    int infeasible;
} Single;

/* Some groups, or some choices, with their items side by side. */
typedef struct {
    Core core;
    int64_t *start, *cost, *place;
    double *value;
} Part;

void drop(Part *p);

/* single.c: relaxation and list program; many.c: the same after a bracket. 0, or −1 where memory ran out. */
int solve_core(Single *s, const Core *core, int64_t capacity, const int64_t *known);
int solve_many(Single *s);

#endif
