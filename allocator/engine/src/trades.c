/* Trades: the groups that may still change, with the moves whose reduced cost leaves room for something better. */
#include "search.h"
#include <stdlib.h>
#include <string.h>

static int64_t gcd64(int64_t a, int64_t b)
{
    uint64_t x = a < 0 ? 0 - (uint64_t)a : (uint64_t)a, y = b < 0 ? 0 - (uint64_t)b : (uint64_t)b;
    while (y) {
        uint64_t t = x % y;
        x = y;
        y = t;
    }
    return (int64_t)x;
}

/* Keeps the moves whose reduced cost is below the room, forgets groups without any, and renews the keys. */
void fix(Search *s, double room, int64_t from)
{
    int64_t kept = from;
    for (int64_t t = from; t < s->trade_count; t++) {
        Trade trade = s->trades[t];
        int64_t last = trade.first;
        trade.key = INFINITY;
        for (int64_t i = trade.first; i < trade.last; i++) {
            Move m = s->moves[i];
            double reduced = reduced_cost(s, &m);
            if (reduced >= room)
                continue;
            s->moves[last++] = m;
            double size = fabs((double)m.cost);
            double key = size > 0 ? fmax(reduced, 0) / size : 0;
            if (key < trade.key) {
                trade.key = key;
                trade.sense = m.cost > 0 ? 1 : -1;
            }
        }
        trade.last = last;
        if (last > trade.first)
            s->trades[kept++] = trade;
    }
    s->trade_count = kept;
}

/* An order without order, the same in every run. */
static inline uint32_t scattered(int64_t group)
{
    return (uint32_t)group * 2654435761u;
}

static int by_key(const void *a, const void *b)
{
    const Trade *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

/* Moves the `count` trades of smallest key to the front of [from, trade_count), in order. */
void select_batch(Search *s, int64_t from, int64_t count)
{
    Trade *t = s->trades;
    int64_t left = from, right = s->trade_count - 1, k = from + count - 1;
    if (from + count < s->trade_count)
        while (left < right) {
            Trade pivot = t[left + (right - left) / 2];
            int64_t i = left, j = right;
            while (i <= j) {
                while (by_key(&t[i], &pivot) < 0)
                    i++;
                while (by_key(&t[j], &pivot) > 0)
                    j--;
                if (i <= j) {
                    Trade x = t[i];
                    t[i++] = t[j];
                    t[j--] = x;
                }
            }
            if (k <= j)
                right = j;
            else if (k >= i)
                left = i;
            else
                break;
        }
    qsort(t + from, (size_t)count, sizeof(Trade), by_key);
    /* in turn one that uses capacity and one that frees some: the lists stay near the capacity */
    for (int64_t i = from, turn = 1; i < from + count; i++, turn = -turn) {
        int64_t j = i;
        while (j < from + count && j < i + 32 && t[j].sense != turn)
            j++;
        if (j == from + count || j == i + 32)
            continue;
        Trade x = t[j];
        memmove(t + i + 1, t + i, sizeof(Trade) * (size_t)(j - i));
        t[i] = x;
    }
}

Slopes widen(const Search *s, Slopes slopes, const Trade *trade)
{
    for (int64_t i = trade->first; i < trade->last; i++) {
        const Move *m = &s->moves[i];
        if (m->cost > 0)
            slopes.up = fmax(slopes.up, -m->value / (double)m->cost);
        else if (m->cost < 0)
            slopes.down = fmin(slopes.down, m->value / -(double)m->cost);
    }
    return slopes;
}

/* gcd of the cost differences of the surviving moves, and of their values where all are whole numbers. */
static void divisors(const Search *s, int64_t *cost, double *value)
{
    int64_t of_cost = 0, of_value = 0;
    int whole = 1;
    for (int64_t t = 0; t < s->trade_count && (of_cost != 1 || whole); t++)
        for (int64_t i = s->trades[t].first; i < s->trades[t].last; i++) {
            const Move *m = &s->moves[i];
            if (of_cost != 1)
                of_cost = gcd64(m->cost, of_cost);
            whole = whole && fabs(m->value) < 4e15 && m->value == rint(m->value);
            if (whole && of_value != 1)
                of_value = gcd64((int64_t)m->value, of_value);
        }
    *cost = of_cost ? of_cost : 1;
    *value = whole ? (double)of_value : 0;
}

/* Fixes by reduced cost, and rounds the slack down to what the surviving cost differences can use. */
void tighten(Search *s)
{
    for (int round = 0; round < 4; round++) {
        int64_t before = s->slack, divisor;
        double step;
        fix(s, s->target - s->bound, 0);
        if (s->target - s->bound > s->horizon)
            return; /* choices that are not here may still count */
        divisors(s, &divisor, &step);
        s->out->divisor = divisor;
        s->slack -= s->slack % divisor;
        s->bound += s->multiplier * (double)(before - s->slack);
        if (step > s->step) {
            s->step = step;
            aim(s);
        } else if (s->slack == before)
            break;
    }
}

/* Appends the moves of one group that leave room, and its trade if there are any. */
static int add_trade(Search *s, const Core *core, const Relaxed *relaxed, int64_t g, double room)
{
    int64_t base = relaxed->base[g], first = s->move_count, last = core->start[g + 1];
    double base_value = core->value[base];
    int64_t base_cost = core->cost[base];
    if (first + last - core->start[g] > s->move_room) {
        int64_t wanted = 2 * (first + last - core->start[g]) + 1024;
        Move *grown = realloc(s->moves, sizeof(Move) * (size_t)wanted);
        if (!grown)
            return -1;
        s->moves = grown;
        s->move_room = wanted;
    }
    for (int64_t i = core->start[g]; i < last; i++) {
        Move m = {core->cost[i] - base_cost, core->value[i] - base_value, i, g};
        if (i == base || !(reduced_cost(s, &m) < room) || (m.cost >= 0 && m.value >= 0))
            continue;
        s->moves[s->move_count++] = m;
    }
    if (s->move_count == first)
        return 0;
    if (s->trade_count + 1 > s->trade_room) {
        int64_t wanted = 2 * s->trade_count + 256;
        Trade *grown = realloc(s->trades, sizeof(Trade) * (size_t)wanted);
        if (!grown)
            return -1;
        s->trades = grown;
        s->trade_room = wanted;
    }
    s->trades[s->trade_count++] = (Trade){0, scattered(g), 1, g, first, s->move_count};
    return s->move_count >= (int64_t)NONE ? 2 : 0;
}

typedef struct {
    double key;
    uint32_t order;
    int64_t group;
} Near;

static inline int after(const Near *a, const Near *b)
{
    return a->key > b->key || (a->key == b->key && a->order > b->order);
}

/* The bound, and the trades of the groups with the cheapest moves: something to find a good allocation with. */
int first_trades(Search *s, const Core *core, const Relaxed *relaxed, int64_t wanted)
{
    Near *heap = malloc(sizeof(Near) * (size_t)(wanted + 1));
    int64_t count = 0;
    double below = 0; /* rounding may leave a reduced cost a little below 0 */
    if (!heap)
        return -1;
    for (int64_t g = 0; g < core->groups; g++) {
        int64_t base = relaxed->base[g];
        double base_value = core->value[base], least = 0, key = INFINITY;
        int64_t base_cost = core->cost[base];
        for (int64_t i = core->start[g]; i < core->start[g + 1]; i++) {
            double cost = (double)(core->cost[i] - base_cost);
            double reduced = core->value[i] - base_value + s->multiplier * cost;
            double size = fabs(cost);
            least = reduced < least ? reduced : least;
            if (size > 0 && reduced < key * size)
                key = fmax(reduced, 0) / size;
        }
        below += least;
        Near x = {key, scattered(g), g};
        if (!wanted || !(key < INFINITY) || (count == wanted && !after(&heap[0], &x)))
            continue;
        int64_t i = count < wanted ? count++ : 0;
        if (i) { /* a new leaf rises */
            for (; i && after(&x, &heap[(i - 1) / 2]); i = (i - 1) / 2)
                heap[i] = heap[(i - 1) / 2];
        } else { /* the last of them makes place */
            for (int64_t child; (child = 2 * i + 1) < count; i = child) {
                child += child + 1 < count && after(&heap[child + 1], &heap[child]);
                if (!after(&heap[child], &x))
                    break;
                heap[i] = heap[child];
            }
        }
        heap[i] = x;
    }
    s->bound = below - s->multiplier * (double)s->slack;
    int stop = 0;
    for (int64_t i = 0; i < count && !stop; i++)
        stop = add_trade(s, core, relaxed, heap[i].group, s->target - s->bound);
    free(heap);
    return stop;
}

/* Every trade that leaves room. */
int all_trades(Search *s, const Core *core, const Relaxed *relaxed)
{
    int stop = 0;
    s->trade_count = s->move_count = 0;
    for (int64_t g = 0; g < core->groups && !stop; g++)
        stop = add_trade(s, core, relaxed, g, s->target - s->bound);
    return stop;
}
