/* Chains: lists of states from both ends, which meet where they are shortest together. */
#include "chain.h"
#include <string.h>

static int grow(ChainState **states, int64_t *room, int64_t wanted)
{
    if (wanted <= *room)
        return 0;
    const int64_t larger = wanted > 2 * *room ? wanted : 2 * *room;
    ChainState *moved = realloc(*states, sizeof(ChainState) * (size_t)larger);
    if (!moved)
        return -1;
    *states = moved;
    *room = larger;
    return 0;
}

/* A place in two lists that are to become one. */
static int grow_both(Chain *c, int64_t wanted)
{
    int64_t room = c->merged_room;
    if (grow(&c->merged, &room, wanted))
        return -1;
    room = c->merged_room;
    if (grow(&c->spare, &room, wanted))
        return -1;
    c->merged_room = room;
    return 0;
}

/* The states of a stage at an end. */
static int first(Chain *c, ChainSide *side, int64_t stage)
{
    side->count = side->first = 0;
    if (grow(&side->states, &side->room, stage_size(c, stage)))
        return -1;
    side->ends[0] = 0;
    for (int64_t k = c->start[stage]; k < c->start[stage + 1]; k++) {
        if (c->alive[k] && c->cost[k] <= c->capacity)
            side->states[side->count++] = (ChainState){c->cost[k], c->value[k], -1, k};
        side->ends[k - c->start[stage] + 1] = side->count;
    }
    return 0;
}

static int before(const ChainState *a, const ChainState *b)
{
    return a->use < b->use || (a->use == b->use && a->loss <= b->loss);
}

/* One choice of the next stage: the states that reach it, less those that are undercut. Lists of both are sorted, so
 * each of the old choices' parts is merged in turn. Returns how many there are, in merged; −1 no memory. */
static int64_t reach(Chain *c, const ChainSide *side, int64_t old, const double *table, int64_t step, int64_t choice,
                     double below)
{
    int64_t count = 0;
    for (int64_t k = 0; k < old; k++) {
        const int64_t from = side->ends[k], to = side->ends[k + 1];
        if (from == to)
            continue;
        if (grow_both(c, count + to - from))
            return -1;
        const double more = table[k * step] + c->value[choice];
        const int64_t cost = c->cost[choice];
        ChainState *out = c->spare;
        const ChainState *other = c->merged, *end = c->merged + count;
        double least = INFINITY;
        int64_t kept = 0;
        for (int64_t s = from; s < to; s++) {
            const ChainState new = {side->states[s].use + cost, side->states[s].loss + more, s, choice};
            if (new.use > c->capacity)
                break; /* uses rise */
            if (!(new.loss + c->price * (double)new.use < below))
                continue;
            for (; other < end && before(other, &new); other++)
                if (other->loss < least) {
                    least = other->loss;
                    out[kept++] = *other;
                }
            if (new.loss < least) {
                least = new.loss;
                out[kept++] = new;
            }
        }
        for (; other < end; other++)
            if (other->loss < least) {
                least = other->loss;
                out[kept++] = *other;
            }
        c->spare = c->merged;
        c->merged = out;
        count = kept;
    }
    return count;
}

/* The states of the next stage; table[k·row + h·column] joins choice k of the last one and h of the next. */
static int extend(Chain *c, ChainSide *side, int64_t last, int64_t next, const double *table, int64_t row,
                  int64_t column, double level, const double *rest)
{
    const int64_t begin = side->count;
    side->next[0] = begin;
    for (int64_t h = 0; h < stage_size(c, next); h++) {
        const int64_t choice = c->start[next] + h;
        if (c->alive[choice]) {
            int64_t count = reach(c, side, stage_size(c, last), table + h * column, row, choice, level - rest[choice]);
            if (count < 0 || grow(&side->states, &side->room, side->count + count))
                return -1;
            if (count)
                memcpy(side->states + side->count, c->merged, sizeof(ChainState) * (size_t)count);
            side->count += count;
        }
        side->next[h + 1] = side->count;
    }
    int64_t *ends = side->ends;
    side->ends = side->next;
    side->next = ends;
    side->first = begin;
    return 0;
}

static void write_down(Chain *c, const ChainSide *side, int64_t at, int64_t stage, int64_t step)
{
    for (; at >= 0; at = side->states[at].parent, stage += step)
        c->taken[stage] = side->states[at].choice;
}

/* The first best allocation over where the sides meet, stages a and a + 1, if it is below what was found. */
static void join(Chain *c, int64_t a, double *found)
{
    const ChainSide *left = &c->left, *right = &c->right;
    const double *table = c->table + c->begin[a];
    const int64_t width = stage_size(c, a + 1);
    int64_t mine = -1, theirs = -1;
    for (int64_t k = 0; k < stage_size(c, a); k++)
        for (int64_t h = 0; h < width; h++) {
            int64_t t = right->ends[h + 1] - 1, begin = right->ends[h];
            double least = INFINITY;
            int64_t ends[2] = {-1, -1};
            for (int64_t s = left->ends[k]; s < left->ends[k + 1]; s++) {
                while (t >= begin && right->states[t].use > c->capacity - left->states[s].use)
                    t--;
                if (t < begin)
                    break;
                const double total = (left->states[s].loss + table[k * width + h]) + right->states[t].loss;
                if (total < least) {
                    least = total;
                    ends[0] = s;
                    ends[1] = t;
                }
            }
            if (least < *found) {
                *found = least;
                mine = ends[0];
                theirs = ends[1];
            }
        }
    if (mine >= 0) {
        write_down(c, left, mine, a, -1);
        write_down(c, right, theirs, a + 1, 1);
    }
}

int chain_below(Chain *c, double cut, double *found)
{
    const double level = cut + c->price * (double)c->capacity;
    for (int64_t k = 0; k < c->start[c->n]; k++)
        c->alive[k] = (c->before[k] + c->along[k]) + c->after[k] < level;
    int64_t a = 0, b = c->n - 1, count = 0;
    if (first(c, &c->left, a) || first(c, &c->right, b))
        return -1;
    while (a + 1 < b) {
        if (now_seconds() > c->deadline)
            return 1;
        if (count > c->most)
            return 2;
        ChainSide *side;
        int failed;
        if (c->left.count - c->left.first <= c->right.count - c->right.first) {
            side = &c->left;
            const int64_t width = stage_size(c, a + 1);
            failed = extend(c, side, a, a + 1, c->table + c->begin[a], width, 1, level, c->after);
            a++;
        } else {
            side = &c->right;
            const int64_t width = stage_size(c, b);
            failed = extend(c, side, b, b - 1, c->table + c->begin[b - 1], 1, width, level, c->before);
            b--;
        }
        if (failed)
            return -1;
        count += side->count - side->first;
        c->states += side->count - side->first;
        if (side->count == side->first)
            return 0;
    }
    join(c, a, found);
    return 0;
}
