/* The linear relaxation of a grouped knapsack, without a general LP solver.
 *
 * Two allocations bracket the capacity: `low` keeps it, `high` does not; both are best at their own price. A price
 * between them (the median of the groups' slopes, then the chord through both) is tried on the groups where the
 * two differ, and becomes one of them. Where the chord finds nothing below itself, its slope is the multiplier.
 * (Dyer 1984, Zemel 1984: prune and search; Dinkelbach 1967: the chord.) */
#include "core.h"
#include <math.h>
#include <stdlib.h>

enum { SAMPLED = 65, MOST_PASSES = 200 };

typedef struct {
    int64_t group;
    int64_t low, high; /* items */
} Open;

static void swap_double(double *a, double *b)
{
    double t = *a;
    *a = *b;
    *b = t;
}

static double median(double *x, int n)
{
    int left = 0, right = n - 1, k = n / 2;
    while (left < right) {
        double pivot = x[(left + right) / 2];
        int i = left, j = right;
        while (i <= j) {
            while (x[i] < pivot)
                i++;
            while (x[j] > pivot)
                j--;
            if (i <= j)
                swap_double(&x[i++], &x[j--]);
        }
        if (k <= j)
            right = j;
        else if (k >= i)
            left = i;
        else
            break;
    }
    return x[k];
}

/* The cheapest item of every group and the one of least value; false where nothing keeps the capacity. */
static int ends(const Core *core, int64_t capacity, Open *open, int64_t *count, Relaxed *out, __int128 *used_low,
                __int128 *used_high)
{
    __int128 low_sum = 0, high_sum = 0;
    int64_t n = 0;
    double scale = 0;
    for (int64_t g = 0; g < core->groups; g++) {
        int64_t first = core->start[g], last = core->start[g + 1], low = first, high = first;
        double low_value = core->value[first], high_value = low_value;
        int64_t low_cost = core->cost[first], high_cost = low_cost;
        double largest = fabs(low_value);
        for (int64_t i = first + 1; i < last; i++) {
            double v = core->value[i];
            int64_t c = core->cost[i];
            largest = fmax(largest, fabs(v));
            if (c < low_cost || (c == low_cost && v < low_value))
                low = i, low_cost = c, low_value = v;
            if (v < high_value || (v == high_value && c < high_cost))
                high = i, high_cost = c, high_value = v;
        }
        scale += largest;
        low_sum += low_cost;
        high_sum += high_cost;
        out->base[g] = low;
        if (low != high && high_cost > low_cost)
            open[n++] = (Open){g, low, high};
        else
            out->base[g] = high;
    }
    *count = n;
    out->scale = scale;
    *used_low = low_sum;
    *used_high = high_sum;
    return low_sum <= (__int128)capacity;
}

static double chord(const Core *core, const Open *open, int64_t n)
{
    double gain = 0;
    __int128 cost = 0;
    for (int64_t t = 0; t < n; t++) {
        gain += core->value[open[t].low] - core->value[open[t].high];
        cost += core->cost[open[t].high] - core->cost[open[t].low];
    }
    return cost > 0 ? gain / (double)cost : -1;
}

static double middle(const Core *core, const Open *open, int64_t n)
{
    double slopes[SAMPLED];
    int64_t step = n / SAMPLED + 1;
    int count = 0;
    for (int64_t t = 0; t < n && count < SAMPLED; t += step)
        slopes[count++] = (core->value[open[t].low] - core->value[open[t].high]) /
                          (double)(core->cost[open[t].high] - core->cost[open[t].low]);
    return median(slopes, count);
}

int relax(const Core *core, int64_t capacity, Relaxed *out)
{
    Open *open = malloc(sizeof(Open) * (size_t)(core->groups + 1));
    int64_t *found = malloc(sizeof(int64_t) * (size_t)(core->groups + 1));
    int64_t n = 0;
    __int128 used_low = 0, used_high = 0;
    if (!open || !found) {
        free(open), free(found);
        return -1;
    }
    out->multiplier = 0;
    out->passes = 1;
    out->infeasible = !ends(core, capacity, open, &n, out, &used_low, &used_high);
    if (!out->infeasible && used_high <= (__int128)capacity) {
        for (int64_t t = 0; t < n; t++)
            out->base[open[t].group] = open[t].high;
        used_low = used_high;
    } else if (!out->infeasible) {
        double multiplier = 0;
        for (int pass = 0; pass < MOST_PASSES && n > 0; pass++) {
            int straight = pass % 2 == 1 || n <= 4;
            multiplier = straight ? chord(core, open, n) : middle(core, open, n);
            if (!(multiplier > 0)) {
                straight = 1;
                multiplier = fmax(chord(core, open, n), 0);
            }
            double below = 0, gain = 0, across = 0; /* priced over the low end: best found, and the high end */
            __int128 used = used_low;
            for (int64_t t = 0; t < n; t++) {
                int64_t low = open[t].low, high = open[t].high, best = low;
                double low_value = core->value[low];
                int64_t low_cost = core->cost[low];
                double best_price = 0; /* over the low item's */
                int64_t last = core->start[open[t].group + 1];
                for (int64_t i = core->start[open[t].group]; i < last; i++) {
                    double price = (core->value[i] - low_value) + multiplier * (double)(core->cost[i] - low_cost);
                    if (price < best_price)
                        best_price = price, best = i;
                }
                /* rounding may name an item outside the bracket: the ends stand for it */
                if (core->cost[best] < low_cost)
                    best = low;
                else if (core->cost[best] > core->cost[high])
                    best = high;
                found[t] = best;
                below += best_price;
                gain += low_value - core->value[high];
                across += multiplier * (double)(core->cost[high] - low_cost);
                used += core->cost[best] - low_cost;
            }
            out->passes++;
            int keeps = used <= (__int128)capacity;
            if (keeps)
                used_low = used;
            int64_t kept = 0, moved = 0;
            for (int64_t t = 0; t < n; t++) {
                Open o = open[t];
                int64_t *end = keeps ? &o.low : &o.high;
                moved += *end != found[t];
                *end = found[t];
                if (keeps)
                    out->base[o.group] = found[t];
                if (o.low != o.high)
                    open[kept++] = o;
            }
            n = kept;
            straight = straight || fabs(across - gain) <= 1e-15 * gain; /* both ends are level, as on a chord */
            if (straight && (below >= -1e-15 * gain || !moved))
                break;
        }
        out->multiplier = multiplier;
        /* what is left open are ties at the multiplier: as many of them as fit */
        for (int64_t t = 0; t < n; t++) {
            __int128 more = used_low + core->cost[open[t].high] - core->cost[open[t].low];
            if (more <= (__int128)capacity) {
                used_low = more;
                out->base[open[t].group] = open[t].high;
            }
        }
    }
    out->slack = out->infeasible ? -1
                 : (__int128)capacity - used_low > INT64_MAX ? INT64_MAX
                                                              : (int64_t)((__int128)capacity - used_low);
    free(open), free(found);
    return 0;
}
