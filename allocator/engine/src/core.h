/* One budget: the groups the kernels work on, and what each step leaves behind. */
#ifndef ALLOCATOR_ENGINE_CORE_H
#define ALLOCATOR_ENGINE_CORE_H

#include "engine.h"
#include <stddef.h>

/* Groups with their free choices ("items"): all of them, a sample, or those a bracket of prices leaves open.
 * group and place lead back to the stated group and choice; NULL: the item numbers are the stated rows. */
typedef struct {
    int64_t groups;
    const int64_t *start; /* [groups + 1] */
    const double *value;  /* [items] */
    const int64_t *cost;  /* [items] */
    const int64_t *group; /* [groups] or NULL */
    const int64_t *place; /* [items] or NULL */
} Core;

/* The optimum of the linear relaxation: a multiplier and the feasible allocation beside it. */
typedef struct {
    double multiplier;
    double scale;  /* Σ over the groups of the largest |value| */
    int64_t *base;   /* [groups] item taken in each group: priced best, the cheaper one of a tie */
    int64_t slack;   /* capacity − Σ cost[base], never negative */
    int64_t passes;
    int infeasible;
} Relaxed;

typedef struct {
    double tolerance; /* gains up to it are not worth a look */
    double deadline;  /* on now_seconds() */
    double horizon;   /* choices that are not in the core have a reduced cost of at least this */
    int64_t nodes;    /* changes remembered, at most */
} Limits;

/* What the list program found; values are over the base allocation's, so never above 0. */
typedef struct {
    double value;
    double bound;    /* no allocation's value is below it by more than the tolerance */
    double lowest;   /* nor below this, the relaxation's */
    double room;     /* reduced costs below it may still count: a proof where it is within the horizon */
    int64_t states;  /* in all lists together */
    int64_t longest; /* list */
    int64_t groups;  /* that were worked through */
    int64_t divisor; /* of the surviving cost differences */
    int limit;       /* 0 none, 1 time, 2 states, −1 memory */
} Listed;

int relax(const Core *core, int64_t capacity, Relaxed *out);

/* Improves on `taken` [groups], which holds the base on entry and the best allocation on return.
 * best: value of an allocation known from elsewhere (at most 0), or 0. */
int list_program(const Core *core, const Relaxed *relaxed, Limits limits, double best, int64_t *taken, Listed *out);

#endif
