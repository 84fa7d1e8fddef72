/* One budget over many groups.
 *
 * The relaxation of a sample gives a multiplier, one pass its exact use, the sample once more the
 * correction. Then one pass at both ends of a bracket around it: a group whose choice is the same at both, with
 * every other choice dearer by a margin, is decided (reduced costs are linear in the multiplier, so the ends bound
 * what lies between). The rest, a few thousand groups, is all that later steps touch. */
#include "single.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_SAMPLED = 16384, LEAST_SAMPLED = 2048, WANTED_OPEN = 4096, MOST_BRACKETS = 12 };

static const double ROUNDED = 1e-15; /* of a price: twice what its rounding may move it by, and more */

/* price[i] = value[i] + multiplier·cost[i]. Whole numbers within ±2^51 become doubles by their bits, which vectors
 * can do; the others, if there are any, by conversion. */
VECTORISED static void price_items(const double *restrict value, const int64_t *restrict cost, int64_t n,
                                   double multiplier, double *restrict price)
{
    uint64_t far = 0;
    for (int64_t i = 0; i < n; i++) {
        union {
            uint64_t whole;
            double number;
        } x;
        x.whole = (uint64_t)cost[i] + 0x4338000000000000u;
        far |= (uint64_t)cost[i] + ((uint64_t)1 << 51);
        price[i] = value[i] + multiplier * (x.number - 6755399441055744.0);
    }
    if (far >> 52)
        for (int64_t i = 0; i < n; i++)
            price[i] = value[i] + multiplier * (double)cost[i];
}

static inline int64_t cheapest(const double *price, int64_t n)
{
    double least = price[0];
    int64_t at = 0;
    for (int64_t i = 1; i < n; i++) {
        at = price[i] < least ? i : at;
        least = price[i] < least ? price[i] : least;
    }
    return at;
}

typedef struct {
    __int128 used, least_used, free_used; /* at the multiplier, at least, and where only values count */
    double scale;
} Priced;

/* Exact use of the capacity at a multiplier. */
static void price_all(const Core *core, double multiplier, Priced *out)
{
    double price[BLOCK];
    memset(out, 0, sizeof *out);
    for (int64_t g = 0; g < core->groups;) {
        int64_t h = g, from = core->start[g];
        while (h < core->groups && core->start[h + 1] - from <= BLOCK)
            h++;
        price_items(core->value + from, core->cost + from, core->start[h] - from, multiplier, price);
        for (; g < h; g++) {
            int64_t first = core->start[g], n = core->start[g + 1] - first;
            const double *value = core->value + first;
            const int64_t *cost = core->cost + first;
            int64_t least = cost[0], at = 0, by_value = 0;
            double lowest = value[0], largest = fabs(value[0]), low_price = price[first - from];
            for (int64_t i = 1; i < n; i++) {
                double p = price[first - from + i];
                least = cost[i] < least ? cost[i] : least;
                by_value = value[i] < lowest ? i : by_value;
                lowest = value[i] < lowest ? value[i] : lowest;
                largest = fabs(value[i]) > largest ? fabs(value[i]) : largest;
                at = p < low_price ? i : at;
                low_price = p < low_price ? p : low_price;
            }
            out->scale += largest;
            out->used += cost[at];
            out->least_used += least;
            out->free_used += cost[by_value];
        }
    }
}

typedef struct {
    __int128 used_low, used_high; /* at the lower and at the higher price */
    __int128 decided;             /* cost of the groups that are not open */
    int64_t *open;                /* groups */
    int64_t count, room;
} Bracket;

static int bracket_pass(const Core *core, double low, double high, double margin, int64_t *taken, Bracket *out)
{
    double at_low[BLOCK], at_high[BLOCK];
    out->used_low = out->used_high = out->decided = 0;
    out->count = 0;
    for (int64_t g = 0; g < core->groups;) {
        int64_t h = g, from = core->start[g];
        while (h < core->groups && core->start[h + 1] - from <= BLOCK)
            h++;
        int64_t items = core->start[h] - from;
        price_items(core->value + from, core->cost + from, items, low, at_low);
        price_items(core->value + from, core->cost + from, items, high, at_high);
        if (out->count + (h - g) > out->room) {
            int64_t room = 2 * (out->count + h - g) + 4096;
            int64_t *grown = realloc(out->open, sizeof(int64_t) * (size_t)room);
            if (!grown)
                return -1;
            out->open = grown;
            out->room = room;
        }
        for (; g < h; g++) {
            int64_t first = core->start[g], n = core->start[g + 1] - first;
            const double *x = at_low + (first - from), *y = at_high + (first - from);
            int64_t i = cheapest(x, n), j = cheapest(y, n), near = 0;
            /* costs far from 0 round coarsely: what lies within that is not decided */
            double x_most = x[i] + margin + ROUNDED * fabs(x[i]), y_most = y[j] + margin + ROUNDED * fabs(y[j]);
            for (int64_t k = 0; k < n; k++)
                near += (x[k] < x_most) | (y[k] < y_most);
            int64_t low_cost = core->cost[first + i], high_cost = core->cost[first + j];
            out->used_low += low_cost;
            out->used_high += high_cost;
            taken[g] = first + i;
            if ((i != j) | (near > 1))
                out->open[out->count++] = g;
            else
                out->decided += low_cost;
        }
    }
    return 0;
}

/* Some groups with their items, side by side. */
static int part_of(const Core *core, const int64_t *groups, int64_t count, int64_t stride, Part *out)
{
    int64_t items = 0;
    memset(out, 0, sizeof *out);
    for (int64_t t = 0; t < count; t++) {
        int64_t g = groups ? groups[t] : t * stride;
        items += core->start[g + 1] - core->start[g];
    }
    out->start = malloc(sizeof(int64_t) * (size_t)(count + 1));
    out->cost = malloc(sizeof(int64_t) * (size_t)(items + 1));
    out->place = malloc(sizeof(int64_t) * (size_t)(items + 1));
    out->value = malloc(sizeof(double) * (size_t)(items + 1));
    if (!out->start || !out->cost || !out->place || !out->value) {
        drop(out);
        return -1;
    }
    items = 0;
    for (int64_t t = 0; t < count; t++) {
        int64_t g = groups ? groups[t] : t * stride;
        out->start[t] = items;
        for (int64_t i = core->start[g]; i < core->start[g + 1]; i++, items++) {
            out->value[items] = core->value[i];
            out->cost[items] = core->cost[i];
            out->place[items] = i;
        }
    }
    out->start[count] = items;
    out->core = (Core){count, out->start, out->value, out->cost, groups, out->place};
    return 0;
}
static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* A margin that leaves about as many groups open as wanted, judged by a sample. */
static double margin_for(const Core *sample, double multiplier, double part)
{
    double *second = malloc(sizeof(double) * (size_t)sample->groups);
    if (!second)
        return 0;
    for (int64_t g = 0; g < sample->groups; g++) {
        double least = INFINITY, next = INFINITY;
        for (int64_t i = sample->start[g]; i < sample->start[g + 1]; i++) {
            double p = sample->value[i] + multiplier * (double)sample->cost[i];
            if (p < least)
                next = least, least = p;
            else if (p < next)
                next = p;
        }
        second[g] = next - least;
    }
    qsort(second, (size_t)sample->groups, sizeof(double), by_size);
    int64_t k = (int64_t)(part * (double)sample->groups);
    double margin = second[k < sample->groups ? k : sample->groups - 1];
    free(second);
    return isfinite(margin) ? margin : 0;
}

/* A multiplier near the optimal one, or below 0 where the sample gives none. */
static double sampled_multiplier(Single *s, const Core *sample, Priced *exact)
{
    double part = (double)sample->groups / (double)s->core->groups, first = -1;
    Relaxed r = {0};
    r.base = malloc(sizeof(int64_t) * (size_t)sample->groups);
    if (!r.base)
        return -1;
    int64_t capacity = (int64_t)((double)s->capacity * part);
    for (int round = 0; round < 2; round++) {
        if (relax(sample, capacity, &r) || r.infeasible || !(r.multiplier > 0)) {
            first = round ? first : -1;
            break;
        }
        first = r.multiplier;
        if (round)
            break;
        price_all(s->core, first, exact);
        s->passes++;
        /* the sample's own use at this price, moved by its share of the miss */
        capacity = capacity - r.slack + (int64_t)((double)((__int128)s->capacity - exact->used) * part);
    }
    free(r.base);
    return first;
}

/* What the relaxation at a multiplier bounds every allocation's value by, over that of `taken`. */
static double bound_beside(const Core *core, const int64_t *taken, double multiplier, int64_t capacity)
{
    double below = 0;
    __int128 slack = capacity;
    for (int64_t g = 0; g < core->groups; g++) {
        double value = core->value[taken[g]], least = 0;
        int64_t cost = core->cost[taken[g]];
        for (int64_t i = core->start[g]; i < core->start[g + 1]; i++)
            least = fmin(least, (core->value[i] - value) + multiplier * (double)(core->cost[i] - cost));
        below += least;
        slack -= cost;
    }
    return below - multiplier * (double)slack;
}

int solve_many(Single *s)
{
    const Core *core = s->core;
    int64_t n = core->groups, count = n / 16;
    count = count < LEAST_SAMPLED ? LEAST_SAMPLED : count > MOST_SAMPLED ? MOST_SAMPLED : count;
    Part sample, open;
    Priced exact;
    if (part_of(core, NULL, count, n / count, &sample))
        return -1;
    double multiplier = sampled_multiplier(s, &sample.core, &exact);
    double margin = multiplier > 0 ? margin_for(&sample.core, multiplier, (double)WANTED_OPEN / (double)n) : 0;
    drop(&sample);
    if (!(multiplier > 0) || exact.least_used > (__int128)s->capacity || exact.free_used <= (__int128)s->capacity)
        return solve_core(s, core, s->capacity, s->start);
    s->scale = exact.scale;
    if (s->limits.tolerance < 0)
        s->limits.tolerance = 2.5e-13 * exact.scale;
    double wide = 2 / sqrt((double)n), low = multiplier * (1 - wide), high = multiplier * (1 + wide);
    Bracket bracket = {0};
    int failed = 0, found = 0, sure = 0;
    for (int round = 0; round < MOST_BRACKETS && !failed && !found; round++) {
        failed = bracket_pass(core, low, high, margin, s->taken, &bracket);
        s->passes++;
        if (failed)
            break;
        wide *= 4;
        if (!sure && bracket.used_high > (__int128)s->capacity) { /* the price has to rise */
            low = high;
            high *= 1 + wide;
            continue;
        }
        if (!sure && bracket.used_low <= (__int128)s->capacity) {
            high = low;
            low *= fmax(1 - wide, 0.1);
            continue;
        }
        s->open = bracket.count;
        if ((failed = part_of(core, bracket.open, bracket.count, 0, &open)))
            break;
        Single inner = *s;
        inner.limits.horizon = margin;
        inner.taken = malloc(sizeof(int64_t) * (size_t)(bracket.count + 1));
        failed = inner.taken ? solve_core(&inner, &open.core, (int64_t)((__int128)s->capacity - bracket.decided), NULL)
                             : -1;
        if (!failed && !inner.infeasible) {
            int inside = inner.multiplier >= low && inner.multiplier <= high;
            for (int64_t t = 0; t < bracket.count; t++)
                s->taken[bracket.open[t]] = open.place[inner.taken[t]];
            s->listed = inner.listed;
            s->multiplier = inner.multiplier;
            s->passes = inner.passes;
            if (inner.listed.limit) { /* the list knows nothing of the groups that are not open */
                s->listed.lowest = s->listed.bound = s->listed.value + bound_beside(core, s->taken, s->multiplier, s->capacity);
            }
            if (inner.listed.limit || (inside && inner.listed.room <= margin))
                found = 1;
            else if (inside) { /* open what the gap leaves open, at the multiplier itself */
                margin = inner.listed.room * (1 + 1e-9);
                low = inner.multiplier * (1 - 1e-9);
                high = inner.multiplier * (1 + 1e-9);
                sure = 1;
            } else {
                low = fmin(low, inner.multiplier) * (1 - 1e-6);
                high = fmax(high, inner.multiplier) * (1 + 1e-6);
            }
        } else if (!failed) { /* the bracket was too narrow for any allocation of its open groups */
            high *= 1 + wide;
            sure = 0;
        }
        free(inner.taken);
        drop(&open);
    }
    free(bracket.open);
    if (!failed && !found)
        return solve_core(s, core, s->capacity, s->start);
    return failed;
}
