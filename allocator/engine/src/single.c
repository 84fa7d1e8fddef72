/* One budget: the capacity lowered to what the common divisor can use, the relaxation, the list program. */
#include "single.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* -- divisors -------------------------------------------------------------------------------------------------- */

typedef struct {
    uint64_t mask, inverse, most;
    int shift;
} Divisor;

static Divisor divisor_of(uint64_t g)
{
    Divisor d = {0, 1, 0, 0};
    while (!(g & 1) && g) {
        g >>= 1;
        d.shift++;
    }
    d.mask = ((uint64_t)1 << d.shift) - 1;
    for (int i = 0; i < 6; i++) /* Newton: each step doubles the bits that are right */
        d.inverse *= 2 - g * d.inverse;
    d.most = g ? UINT64_MAX / g : 0;
    return d;
}

static inline int divides(Divisor d, uint64_t x)
{
    return !(x & d.mask) && (x >> d.shift) * d.inverse <= d.most;
}

/* gcd of the cost differences within the groups; 0 where there are none. */
static int64_t common_divisor(const Core *core)
{
    uint64_t g = 0;
    Divisor d = divisor_of(1);
    for (int64_t k = 0; k < core->groups && g != 1; k++) {
        int64_t first = core->cost[core->start[k]];
        for (int64_t i = core->start[k] + 1; i < core->start[k + 1]; i++) {
            int64_t more = core->cost[i] - first;
            uint64_t x = more < 0 ? 0 - (uint64_t)more : (uint64_t)more;
            if (!x || (g && divides(d, x)))
                continue;
            uint64_t y = g;
            while (y) {
                uint64_t t = x % y;
                x = y;
                y = t;
            }
            g = x;
            d = divisor_of(g);
        }
    }
    return (int64_t)g;
}

/* What can never be used of the capacity: every allocation costs the same modulo the divisor. */
static int64_t lost_capacity(const Core *core, int64_t capacity, int64_t divisor)
{
    if (divisor <= 1)
        return 0;
    __int128 rest = capacity;
    for (int64_t k = 0; k < core->groups; k++)
        rest -= core->cost[core->start[k]];
    __int128 lost = rest % divisor;
    return (int64_t)(lost < 0 ? lost + divisor : lost);
}

/* -- few groups ------------------------------------------------------------------------------------------------ */

static double value_over(const Core *core, const int64_t *items, const int64_t *base)
{
    double sum = 0;
    for (int64_t g = 0; g < core->groups; g++)
        sum += core->value[items[g]] - core->value[base[g]];
    return sum;
}

int solve_core(Single *s, const Core *core, int64_t capacity, const int64_t *known)
{
    Relaxed relaxed = {0};
    relaxed.base = s->taken;
    if (relax(core, capacity, &relaxed))
        return -1;
    s->passes += relaxed.passes;
    s->infeasible = relaxed.infeasible;
    s->multiplier = relaxed.multiplier;
    if (relaxed.infeasible)
        return 0;
    s->scale = relaxed.scale;
    if (s->limits.tolerance < 0)
        s->limits.tolerance = 2.5e-13 * relaxed.scale;
    size_t size = sizeof(int64_t) * (size_t)core->groups;
    int64_t *base = malloc(size + 8);
    if (!base)
        return -1;
    memcpy(base, relaxed.base, size);
    relaxed.base = base;
    double best = known ? fmin(value_over(core, known, base), 0) : 0;
    int failed = list_program(core, &relaxed, s->limits, best, s->taken, &s->listed);
    if (!failed && known && best < 0 && s->listed.value >= best)
        memcpy(s->taken, known, size);
    free(base);
    return failed;
}

/* -- the call -------------------------------------------------------------------------------------------------- */

static int solve(Single *s)
{
    const Core *core = s->core;
    int many = core->groups >= MANY;
    s->divisor = common_divisor(core);
    int64_t lost = lost_capacity(core, s->capacity, s->divisor);
    if (s->capacity < INT64_MIN + 1 + lost) { /* no sum of costs is as low */
        memcpy(s->taken, core->start, sizeof(int64_t) * (size_t)core->groups);
        s->infeasible = 1;
        return 0;
    }
    s->capacity -= lost;
    for (int64_t g = 0; g < core->groups && many; g++)
        many = core->start[g + 1] - core->start[g] <= BLOCK;
    return many ? solve_many(s) : solve_core(s, core, s->capacity, s->start);
}

/* By how much something better may exist: a tolerance wider than rounding needs is not passed over in silence. */
static double not_proved(const Single *s)
{
    double wide = s->limits.tolerance > 1e-12 * s->scale
                      ? fmin(s->limits.tolerance, s->listed.value - s->listed.lowest) : 0;
    return fmax(s->listed.value - s->listed.bound, wide);
}

/* Leaves out the choices that are not free. */
void drop(Part *p)
{
    free(p->start), free(p->cost), free(p->place), free(p->value);
    *p = (Part){0};
}

static int free_part(const Core *core, const uint8_t *is_free, Part *out)
{
    int64_t items = 0;
    memset(out, 0, sizeof *out);
    for (int64_t i = 0; i < core->start[core->groups]; i++)
        items += is_free[i] != 0;
    out->start = malloc(sizeof(int64_t) * (size_t)(core->groups + 1));
    out->cost = malloc(sizeof(int64_t) * (size_t)(items + 1));
    out->place = malloc(sizeof(int64_t) * (size_t)(items + 1));
    out->value = malloc(sizeof(double) * (size_t)(items + 1));
    if (!out->start || !out->cost || !out->place || !out->value) {
        drop(out);
        return -1;
    }
    items = 0;
    for (int64_t g = 0; g < core->groups; g++) {
        out->start[g] = items;
        for (int64_t i = core->start[g]; i < core->start[g + 1]; i++)
            if (is_free[i]) {
                out->value[items] = core->value[i];
                out->cost[items] = core->cost[i];
                out->place[items++] = i;
            }
    }
    out->start[core->groups] = items;
    out->core = (Core){core->groups, out->start, out->value, out->cost, NULL, out->place};
    return 0;
}

PyObject *native_single(PyObject *self, PyObject *args)
{
    Py_buffer start, value, cost, is_free, known, taken, numbers;
    long long capacity, nodes;
    double tolerance, seconds;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*y*y*z*z*LddLw*w*", &start, &value, &cost, &is_free, &known, &capacity, &tolerance,
                          &seconds, &nodes, &taken, &numbers))
        return NULL;
    int failed = 0;
    int64_t groups = start.len / 8 - 1;
    int fits = groups > 0 && value.len == cost.len && taken.len == 8 * groups && numbers.len >= 8 * 12 &&
               (!is_free.buf || is_free.len * 8 == cost.len) && (!known.buf || known.len == taken.len);
    if (fits) {
        Py_BEGIN_ALLOW_THREADS;
        Core core = {groups, start.buf, value.buf, cost.buf, NULL, NULL};
        Single s = {0};
        Part part = {0};
        s.core = &core;
        s.capacity = capacity;
        s.limits = (Limits){tolerance, now_seconds() + seconds, INFINITY, nodes};
        s.taken = taken.buf;
        s.start = known.buf;
        if (is_free.buf) {
            failed = free_part(&core, is_free.buf, &part);
            s.core = &part.core;
            s.start = NULL; /* rows are not items here */
        }
        failed = failed ? failed : solve(&s);
        if (!failed && is_free.buf)
            for (int64_t g = 0; g < groups; g++)
                s.taken[g] = part.place[s.taken[g]];
        drop(&part);
        double *out = numbers.buf;
        out[0] = s.infeasible;
        out[1] = s.listed.limit;
        out[2] = s.multiplier;
        out[3] = not_proved(&s);
        out[4] = (double)s.divisor;
        out[5] = (double)s.listed.divisor;
        out[6] = (double)s.listed.states;
        out[7] = (double)s.listed.longest;
        out[8] = (double)s.listed.groups;
        out[9] = (double)s.passes;
        out[10] = (double)s.open;
        out[11] = s.scale;
        Py_END_ALLOW_THREADS;
    }
    Py_buffer *all[] = {&start, &value, &cost, &is_free, &known, &taken, &numbers};
    for (int i = 0; i < 7; i++)
        if (all[i]->obj)
            PyBuffer_Release(all[i]);
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "arrays do not fit together");
        return NULL;
    }
    if (failed)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}
