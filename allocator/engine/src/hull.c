/* The lower convex hull of each group's (cost, value) points, and all its edges ordered by slope.
 *
 * An edge's slope is computed once, as a double, and every decision compares such doubles: so edges of one group
 * never stand in the wrong order, whatever rounding did. The sort is stable and sees edges group by group.
 * One scatter by the leading bits of the key, then a radix sort within each bucket that fits a cache. */
#include "engine.h"
#include <stdlib.h>
#include <string.h>

#define BUCKETS 65536
#define BUCKET_SHIFT 47 /* a positive double has its sign bit clear: 11 bits of exponent and 5 of mantissa */
#define DIGIT 10        /* the 47 bits that are left, in five digits */
#define DIGITS 5
#define FEW 48          /* below it insertion is faster than counting */

typedef struct {
    const double *value;
    const int64_t *cost, *indptr;
    const uint8_t *free; /* NULL: all */
    int64_t groups;
} Columns;

typedef struct {
    int64_t cost;
    double value;
    int64_t place;
} Point;

typedef struct {
    uint64_t key;
    int32_t group, choice;
} Move;

typedef struct {
    Point *points, *aside;
    double *slope;
} Scratch;

static void scratch_free(Scratch *s)
{
    free(s->points);
    free(s->aside);
    free(s->slope);
}

static int scratch_init(Scratch *s, const Columns *c)
{
    int64_t most = 1;
    for (int64_t g = 0; g < c->groups; g++) {
        int64_t k = c->indptr[g + 1] - c->indptr[g];
        most = k > most ? k : most;
    }
    s->points = malloc((size_t)most * sizeof(Point));
    s->aside = malloc((size_t)most * sizeof(Point));
    s->slope = malloc((size_t)most * sizeof(double));
    return s->points && s->aside && s->slope;
}

static int before(const Point *a, const Point *b)
{
    return a->cost < b->cost || (a->cost == b->cost && a->value < b->value);
}

/* Stable, by cost and then value; already sorted groups, the usual ones, cost one comparison per point. */
static void sort_points(Point *points, Point *aside, int64_t n)
{
    if (n <= FEW) {
        for (int64_t i = 1; i < n; i++) {
            Point p = points[i];
            int64_t j = i;
            for (; j > 0 && before(&p, &points[j - 1]); j--)
                points[j] = points[j - 1];
            points[j] = p;
        }
        return;
    }
    int64_t half = n / 2;
    sort_points(points, aside, half);
    sort_points(points + half, aside, n - half);
    memcpy(aside, points, (size_t)half * sizeof(Point));
    int64_t i = 0, j = half, out = 0;
    while (i < half && j < n)
        points[out++] = before(&points[j], &aside[i]) ? points[j++] : aside[i++];
    memcpy(points + out, aside + i, (size_t)(half - i) * sizeof(Point));
}

static double rate(const Point *from, const Point *to)
{
    return (from->value - to->value) / (double)(to->cost - from->cost);
}

/* Leaves the vertices in s->points, cheapest first, and the slope of the edge into vertex i in s->slope[i]. */
static int64_t chain(const Columns *c, int64_t g, Scratch *s)
{
    Point *p = s->points;
    double *slope = s->slope;
    int64_t start = c->indptr[g], n = 0, top = 0;
    for (int64_t i = start; i < c->indptr[g + 1]; i++)
        if (!c->free || c->free[i])
            p[n++] = (Point){c->cost[i], c->value[i], i - start};
    if (n == 0)
        return 0;
    sort_points(p, s->aside, n);
    for (int64_t i = 1; i < n; i++) {
        if (!(p[i].value < p[top].value))
            continue; /* dominated */
        double into = rate(&p[top], &p[i]);
        while (top > 0 && into > slope[top])
            into = rate(&p[--top], &p[i]);
        p[++top] = p[i];
        slope[top] = into;
    }
    return top + 1;
}

static uint64_t key_of(double slope)
{
    uint64_t bits;
    memcpy(&bits, &slope, sizeof bits);
    return ~bits; /* steepest first */
}

static double slope_of(uint64_t key)
{
    double slope;
    key = ~key;
    memcpy(&slope, &key, sizeof slope);
    return slope;
}

static int64_t bucket_of(uint64_t key)
{
    return (int64_t)(key >> BUCKET_SHIFT & (BUCKETS - 1));
}

/* Number of edges; −1 where memory ran out, −2 − g where group g has nothing to take. */
static int64_t count_edges(const Columns *c, int32_t *base, int64_t *histogram)
{
    Scratch s;
    int64_t edges = 0;
    if (!scratch_init(&s, c)) {
        scratch_free(&s);
        return -1;
    }
    memset(histogram, 0, BUCKETS * sizeof *histogram);
    for (int64_t g = 0; g < c->groups; g++) {
        int64_t n = chain(c, g, &s);
        if (n == 0) {
            edges = -2 - g;
            break;
        }
        base[g] = (int32_t)s.points[0].place;
        for (int64_t i = 1; i < n; i++)
            histogram[bucket_of(key_of(s.slope[i]))]++;
        edges += n - 1;
    }
    scratch_free(&s);
    return edges;
}

static void insertion(Move *m, int64_t n)
{
    for (int64_t i = 1; i < n; i++) {
        Move one = m[i];
        int64_t j = i;
        for (; j > 0 && one.key < m[j - 1].key; j--)
            m[j] = m[j - 1];
        m[j] = one;
    }
}

/* Stable sort of n moves with equal leading bits; returns which of the two buffers holds the result. */
static Move *radix(Move *from, Move *to, int64_t n)
{
    int64_t count[DIGITS][1 << DIGIT];
    const uint64_t mask = (1 << DIGIT) - 1;
    if (n <= FEW) {
        insertion(from, n);
        return from;
    }
    memset(count, 0, sizeof count);
    for (int64_t i = 0; i < n; i++)
        for (int d = 0; d < DIGITS; d++)
            count[d][from[i].key >> d * DIGIT & mask]++;
    for (int d = 0; d < DIGITS; d++) {
        int shift = d * DIGIT;
        int64_t at = 0;
        if (count[d][from[0].key >> shift & mask] == n)
            continue; /* this digit tells nothing apart: equal slopes cost one look */
        for (int64_t i = 0; i <= (int64_t)mask; i++) {
            int64_t here = count[d][i];
            count[d][i] = at;
            at += here;
        }
        for (int64_t i = 0; i < n; i++)
            to[count[d][from[i].key >> shift & mask]++] = from[i];
        Move *swap = from;
        from = to;
        to = swap;
    }
    return from;
}

/* Edges into their buckets, each bucket sorted where it lies. `end` comes as the histogram. slope holds keys meanwhile. */
static int order_edges(const Columns *c, int64_t *end, int32_t *group, int32_t *choice, double *slope)
{
    Scratch s;
    int64_t largest = 1, at = 0;
    for (int64_t b = 0; b < BUCKETS; b++) {
        int64_t here = end[b];
        largest = here > largest ? here : largest;
        end[b] = at;
        at += here;
    }
    Move *buffer = malloc((size_t)largest * 2 * sizeof(Move));
    if (!scratch_init(&s, c) || !buffer) {
        scratch_free(&s);
        free(buffer);
        return 0;
    }
    for (int64_t g = 0; g < c->groups; g++) {
        int64_t n = chain(c, g, &s);
        for (int64_t i = 1; i < n; i++) {
            int64_t to = end[bucket_of(key_of(s.slope[i]))]++;
            slope[to] = s.slope[i];
            group[to] = (int32_t)g;
            choice[to] = (int32_t)s.points[i].place;
        }
    }
    at = 0;
    for (int64_t b = 0; b < BUCKETS; b++) { /* end[b] now is the end of bucket b */
        int64_t n = end[b] - at;
        if (n > 1) {
            for (int64_t i = 0; i < n; i++)
                buffer[i] = (Move){key_of(slope[at + i]), group[at + i], choice[at + i]};
            const Move *sorted = radix(buffer, buffer + n, n);
            for (int64_t i = 0; i < n; i++) {
                slope[at + i] = slope_of(sorted[i].key);
                group[at + i] = sorted[i].group;
                choice[at + i] = sorted[i].choice;
            }
        }
        at = end[b];
    }
    scratch_free(&s);
    free(buffer);
    return 1;
}

/* The running cost after each move, and what the move takes off the value. total[0] comes filled in; `now` [groups]
 * starts as the base and ends as the last allocation. */
static void walk(const Columns *c, int32_t *now, const int32_t *group, const int32_t *choice, int64_t n,
                 int64_t *total, double *drop)
{
    int64_t running = total[0];
    for (int64_t m = 0; m < n; m++) {
        int64_t start = c->indptr[group[m]];
        int64_t from = start + now[group[m]], to = start + choice[m];
        now[group[m]] = choice[m];
        running += c->cost[to] - c->cost[from];
        total[m + 1] = running;
        drop[m] = c->value[from] - c->value[to];
    }
}

static int parse(PyObject *args, const char *format, unsigned long long a[], Columns *c)
{
    long long groups;
    if (!PyArg_ParseTuple(args, format, &a[0], &a[1], &a[2], &a[3], &groups, &a[4], &a[5], &a[6], &a[7], &a[8]))
        return 0;
    *c = (Columns){(const double *)(uintptr_t)a[0], (const int64_t *)(uintptr_t)a[1],
                   (const int64_t *)(uintptr_t)a[2], (const uint8_t *)(uintptr_t)a[3], groups};
    return 1;
}

/* hull_count(value, cost, indptr, free or 0, groups, base, histogram) -> edges, or −2 − g for an empty group g */
PyObject *hull_count(PyObject *module, PyObject *args)
{
    unsigned long long a[9];
    Columns c;
    int64_t edges;
    (void)module;
    if (!parse(args, "KKKKLKK", a, &c))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    edges = count_edges(&c, (int32_t *)(uintptr_t)a[4], (int64_t *)(uintptr_t)a[5]);
    Py_END_ALLOW_THREADS
    return edges == -1 ? PyErr_NoMemory() : PyLong_FromLongLong(edges);
}

/* hull_order(value, cost, indptr, free or 0, groups, histogram, group, choice, slope); the histogram is used up */
PyObject *hull_order(PyObject *module, PyObject *args)
{
    unsigned long long a[9];
    Columns c;
    int done;
    (void)module;
    if (!parse(args, "KKKKLKKKK", a, &c))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    done = order_edges(&c, (int64_t *)(uintptr_t)a[4], (int32_t *)(uintptr_t)a[5], (int32_t *)(uintptr_t)a[6],
                       (double *)(uintptr_t)a[7]);
    Py_END_ALLOW_THREADS
    if (!done)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

/* hull_walk(value, cost, indptr, moves, now, group, choice, total, drop) */
PyObject *hull_walk(PyObject *module, PyObject *args)
{
    unsigned long long value, cost, indptr, now, group, choice, total, drop;
    long long moves;
    (void)module;
    if (!PyArg_ParseTuple(args, "KKKLKKKKK", &value, &cost, &indptr, &moves, &now, &group, &choice, &total, &drop))
        return NULL;
    Columns c = {(const double *)(uintptr_t)value, (const int64_t *)(uintptr_t)cost,
                 (const int64_t *)(uintptr_t)indptr, NULL, 0};
    Py_BEGIN_ALLOW_THREADS
    walk(&c, (int32_t *)(uintptr_t)now, (const int32_t *)(uintptr_t)group, (const int32_t *)(uintptr_t)choice, moves,
         (int64_t *)(uintptr_t)total, (double *)(uintptr_t)drop);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}
