/* Stages in a chain under one budget: see allocator/engine/chain.py; step by step the same as chain_numpy.py. */
#ifndef ALLOCATOR_ENGINE_CHAIN_H
#define ALLOCATOR_ENGINE_CHAIN_H

#include "engine.h"
#include <math.h>

typedef struct {
    int64_t use;
    double loss;
    int64_t parent; /* place in the side's states, −1 at the end of the chain */
    int64_t choice;
} ChainState;

/* The states of one side, stage after stage; the last stage's choice k has those from ends[k] to ends[k + 1]. */
typedef struct {
    ChainState *states;
    int64_t count, room;
    int64_t *ends, *next; /* [widest stage + 1] */
    int64_t first;        /* of the last stage's */
} ChainSide;

typedef struct {
    int64_t n, capacity, most;
    const int64_t *start; /* [n + 1] */
    const double *value;
    const int64_t *cost;
    const double *table;
    const int64_t *begin; /* [n] */
    int64_t widest;
    double price, bound, deadline;
    double *along, *before, *after; /* [m] */
    unsigned char *alive;           /* [m] */
    double *reached, *through;      /* [widest] */
    int64_t *back;                  /* [m] */
    int64_t *taken, *trial, *best;  /* [n] */
    ChainState *merged, *spare;
    int64_t merged_room;
    ChainSide left, right;
    int64_t states;
} Chain;

static inline int64_t stage_size(const Chain *c, int64_t i)
{
    return c->start[i + 1] - c->start[i];
}

/* The best allocation below a cut into taken, its value into found. 0: none is left open and *found says whether there
 * is one (else it is the cut), 1 time, 2 states, −1 memory. */
int chain_below(Chain *c, double cut, double *found);

#endif
