/* The list program's search: states, the changes they remember, and the trades still to come. */
#ifndef ALLOCATOR_ENGINE_SEARCH_H
#define ALLOCATOR_ENGINE_SEARCH_H

#include "core.h"
#include <math.h>

#define NONE UINT32_MAX
typedef struct {
    int64_t slack;
    double value;
    uint32_t node; /* of the last change, NONE at the base */
    uint32_t move; /* of the group at hand, NONE: none */
} State;

typedef struct {
    uint32_t parent, move;
} Node;

/* A change of one group away from its base. */
typedef struct {
    int64_t cost; /* over the base item's */
    double value; /* likewise */
    int64_t item, group;
} Move;

typedef struct {
    double key;     /* the smallest reduced cost per unit of cost among its moves */
    uint32_t order; /* among equal keys: scattered, so that both directions come early */
    int32_t sense;  /* of the move that has the smallest: 1 uses capacity, −1 frees some */
    int64_t group;
    int64_t first, last; /* moves */
} Trade;

typedef struct {
    double up, down; /* most gain per unit of slack used, least loss per unit freed */
} Slopes;

typedef struct {
    Move *moves;
    Trade *trades;
    int64_t move_count, move_room, trade_count, trade_room;
    Node *nodes;
    int64_t node_count, node_room, most_nodes;
    State *list, *next, *spare;
    int64_t count, room;
    int64_t *ends, ends_room;
    double multiplier, tolerance, step;
    int64_t slack;        /* of the base */
    double bound;         /* of the relaxation: no value is below it */
    double best, target;  /* value found, and what a better one must be below */
    uint32_t best_node;   /* NONE where `taken` holds the best already */
    int64_t *taken;
    double deadline, horizon;
    int64_t cap;          /* longest list of this round; a longer one is thinned out */
    int thinned;
    Slopes rest;          /* of the groups without a trade */
    Listed *out;
} Search;

static inline double reduced_cost(const Search *s, const Move *m)
{
    return m->value + s->multiplier * (double)m->cost;
}

static inline double bound_of(double value, int64_t slack, Slopes slopes)
{
    return slack >= 0 ? value - (double)slack * slopes.up : value - (double)slack * slopes.down;
}

/* What a better allocation has to stay below: by a whole step where all values are multiples of it. */
static inline void aim(Search *s)
{
    int whole = s->step > 0 && fmod(s->best, s->step) == 0;
    s->target = s->best - fmax(s->tolerance, whole ? s->step * (1 - 1e-6) : 0);
}

/* states.c: 0 all right, 2 too many states, −1 no memory */
int begin(Search *s);
int expand(Search *s, const Trade *trade, Slopes rest);
void improve(Search *s);
void thin_out(Search *s);

/* trades.c */
void fix(Search *s, double room, int64_t from);
void select_batch(Search *s, int64_t from, int64_t count);
Slopes widen(const Search *s, Slopes slopes, const Trade *trade);
void tighten(Search *s);
int first_trades(Search *s, const Core *core, const Relaxed *relaxed, int64_t wanted);
int all_trades(Search *s, const Core *core, const Relaxed *relaxed);

#endif
