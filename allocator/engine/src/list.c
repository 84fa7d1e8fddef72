/* The list program on the core: exact, whatever the values and costs.
 *
 * A state is what some groups have been changed to, all others at their base: the slack it leaves (below 0: over
 * the capacity) and its value over the base allocation's. Groups come in the order of their cheapest trade, in
 * rising batches, so that most of them are ruled out before their turn. Of the groups still to come, no change
 * gains more than `up` per unit of slack, and none frees a unit for less than `down`; a state that cannot reach
 * the target with those slopes is dropped, and so is one that another undercuts in both slack and value.
 * (Pisinger 1995: minimal core with two-sided slopes; Nemhauser & Ullmann 1969: lists without dominated states.)
 */
#include "search.h"
#include <stdlib.h>
#include <string.h>

enum { FIRST_BATCH = 64, BATCH_GROWTH = 16, FEW_GROUPS = 200, LONGEST = 4000000 };

static void write_down(Search *s, const Relaxed *relaxed, int64_t groups)
{
    memcpy(s->taken, relaxed->base, sizeof(int64_t) * (size_t)groups);
    for (uint32_t n = s->best_node; n != NONE; n = s->nodes[n].parent)
        s->taken[s->moves[s->nodes[n].move].group] = s->moves[s->nodes[n].move].item;
}

/* slopes[t]: of the batch's trades from t on, and of the rest. */
static void suffix_slopes(const Search *s, Slopes *slopes, int64_t from, int64_t count, Slopes rest)
{
    slopes[count] = rest;
    for (int64_t t = count - 1; t >= 0; t--)
        slopes[t] = widen(s, slopes[t + 1], &s->trades[from + t]);
}

/* Fills the slack with the best gain that fits, group after group: something to begin with. */
static void fill(Search *s, const Relaxed *relaxed, int64_t groups, int64_t count)
{
    int64_t slack = s->slack;
    double value = 0;
    for (int64_t pass = 0; pass < 2; pass++) {
        int64_t left = slack;
        if (pass && !(value < s->best))
            return;
        for (int64_t t = 0; t < count && left > 0; t++) {
            int64_t best = -1;
            double gain = 0;
            for (int64_t i = s->trades[t].first; i < s->trades[t].last; i++)
                if (s->moves[i].cost <= left && -s->moves[i].value > gain)
                    gain = -s->moves[i].value, best = i;
            if (best < 0)
                continue;
            left -= s->moves[best].cost;
            value -= pass ? 0 : gain;
            if (pass)
                s->taken[s->moves[best].group] = s->moves[best].item;
        }
        if (!pass && value < s->best)
            memcpy(s->taken, relaxed->base, sizeof(int64_t) * (size_t)groups);
    }
    s->best = value;
    aim(s);
}

/* One pass over the surviving groups. 0: nothing better is left; 1: time; 2: states; −1: memory. */
static int run(Search *s, Slopes **slopes)
{
    int64_t from = 0, batch = FIRST_BATCH;
    if (begin(s))
        return -1;
    while (s->count && from < s->trade_count) {
        fix(s, s->target - s->bound, from);
        int64_t count = s->trade_count - from < batch ? s->trade_count - from : batch;
        if (!count)
            break;
        select_batch(s, from, count);
        Slopes rest = s->rest;
        for (int64_t t = from + count; t < s->trade_count; t++)
            rest = widen(s, rest, &s->trades[t]);
        Slopes *grown = realloc(*slopes, sizeof(Slopes) * (size_t)(count + 1));
        if (!grown)
            return -1;
        *slopes = grown;
        suffix_slopes(s, grown, from, count, rest);
        for (int64_t t = 0; t < count && s->count; t++) {
            Trade *trade = &s->trades[from + t];
            int64_t last = trade->first;
            for (int64_t i = trade->first; i < trade->last; i++)
                if (reduced_cost(s, &s->moves[i]) < s->target - s->bound)
                    s->moves[last++] = s->moves[i];
            trade->last = last;
            if (last == trade->first)
                continue;
            int stop = expand(s, trade, grown[t + 1]);
            s->out->groups++;
            s->out->longest = s->count > s->out->longest ? s->count : s->out->longest;
            if (stop < 0)
                return stop;
            if (!stop) { /* a list that ran out of nodes cannot say how its states came about */
                improve(s);
                if (s->target <= s->bound)
                    return 0;
            }
            if (!stop && s->count > LONGEST)
                stop = 2;
            if (!stop && now_seconds() > s->deadline)
                stop = 1;
            if (stop) {
                double least = s->thinned ? -INFINITY : s->target;
                for (int64_t i = 0; i < s->count; i++)
                    least = fmin(least, bound_of(s->list[i].value, s->list[i].slack, grown[t]));
                s->out->bound = fmax(s->bound, least);
                return stop;
            }
            if (s->count > s->cap)
                thin_out(s);
        }
        from += count;
        batch *= BATCH_GROWTH;
        if (s->thinned)
            break;
    }
    return 0;
}

static int one_round(Search *s, const Relaxed *relaxed, int64_t groups, Slopes **slopes)
{
    int64_t count = s->trade_count < FIRST_BATCH ? s->trade_count : FIRST_BATCH;
    if (count) {
        fix(s, INFINITY, 0); /* the keys */
        select_batch(s, 0, count);
        fill(s, relaxed, groups, count);
    }
    int stop = run(s, slopes);
    if (s->best_node != NONE)
        write_down(s, relaxed, groups);
    return stop;
}

int list_program(const Core *core, const Relaxed *relaxed, Limits limits, double best, int64_t *taken, Listed *out)
{
    const int64_t caps[] = {512, 16384, INT64_MAX};
    Search s = {0};
    Slopes *slopes = NULL;
    s.multiplier = relaxed->multiplier;
    s.slack = s.multiplier > 0 ? relaxed->slack : 0;
    s.tolerance = limits.tolerance;
    s.most_nodes = limits.nodes < (int64_t)NONE ? limits.nodes : (int64_t)NONE - 1;
    s.deadline = limits.deadline;
    s.horizon = limits.horizon;
    s.best = best;
    s.best_node = NONE;
    s.taken = taken;
    s.out = out;
    memset(out, 0, sizeof *out);
    out->divisor = 1;
    out->bound = -INFINITY;
    aim(&s);
    int few = core->groups <= FEW_GROUPS;
    int stop = first_trades(&s, core, relaxed, few ? 0 : FIRST_BATCH);
    out->lowest = s.bound;
    if (!stop && !few && s.target > s.bound) { /* a good allocation first: what it rules out is never looked at */
        s.cap = caps[0];
        s.rest = (Slopes){s.multiplier, s.multiplier};
        stop = one_round(&s, relaxed, core->groups, &slopes);
    }
    if (!stop && s.target > s.bound) {
        s.rest = (Slopes){0, INFINITY};
        stop = all_trades(&s, core, relaxed);
        for (int round = !few; round < 3 && !stop && s.target > s.bound; round++) {
            s.cap = caps[round];
            tighten(&s);
            stop = one_round(&s, relaxed, core->groups, &slopes);
            if (!s.thinned)
                break;
        }
    }
    out->value = s.best;
    out->room = s.target - s.bound;
    out->limit = stop;
    out->bound = stop ? fmin(fmax(out->bound, s.bound), s.best) : s.best;
    free(s.moves), free(s.trades), free(s.nodes), free(s.list), free(s.next), free(s.spare), free(s.ends), free(slopes);
    return stop < 0 ? -1 : 0;
}
