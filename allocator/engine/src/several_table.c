/* All completions of the last groups, in a k-d tree over their uses and paid reduced values: meeting in the middle.
 *
 * A completion t of a node (bound b under the first prices λ, uses u) is worth
 *   b + paid_t + Σ_{λ>0} λ (hi − u − use_t) + Σ_{λ<0} |λ| (u + use_t − lo);
 * the question is whether any keeps the rows and is worth less than the target. */
#include "engine.h"
#include "several.h"

#define MOST_LEVELS 48

/* The least that completions within [least, most] may add for unused limits; < 0 where none keeps the rows. */
static double unused(const frame_t *f, const int64_t *u, const int64_t *least, const int64_t *most)
{
    double sum = 0.0;
    for (int64_t r = 0; r < f->rows; r++) {
        const int64_t over = f->hi[r] - u[r], under = f->lo[r] - u[r];
        if (least[r] > over || most[r] < under)
            return -1.0;
        const double p = f->price[r];
        if (p > 0 && over > most[r])
            sum += p * (double)(over - most[r]);
        else if (p < 0 && least[r] > under)
            sum -= p * (double)(least[r] - under);
    }
    return sum;
}

int completes(const frame_t *f, double bound, const int64_t *used, double target)
{
    int64_t box[MOST_LEVELS], from[MOST_LEVELS], to[MOST_LEVELS];
    int64_t top = 0;
    box[0] = 0, from[0] = 0, to[0] = f->points;
    const int64_t R = f->rows;
    while (top >= 0) {
        const int64_t b = box[top], i = from[top], j = to[top];
        top--;
        const double room = target - bound - f->box_paid[b];
        if (room <= 0)
            continue;
        const double rest = unused(f, used, f->box_least + b * R, f->box_most + b * R);
        if (rest < 0 || rest >= room)
            continue;
        if (j - i <= f->leaf) {
            for (int64_t t = i; t < j; t++) {
                const double left = target - bound - f->point_paid[t];
                if (left <= 0)
                    continue;
                const double slack = unused(f, used, f->point_use + t * R, f->point_use + t * R);
                if (slack >= 0 && slack < left)
                    return 1;
            }
            continue;
        }
        const int64_t m = i + (j - i) / 2;
        top++;
        box[top] = 2 * b + 2, from[top] = m, to[top] = j;
        top++;
        box[top] = 2 * b + 1, from[top] = i, to[top] = m;
    }
    return 0;
}

typedef struct {
    double paid;
    int64_t use[4];
} point_t;

static double key(const point_t *p, int64_t dim, int64_t R)
{
    return dim == R ? p->paid : (double)p->use[dim];
}

/* Order points so that the first `middle` are no larger in a dimension than the others. */
static void halve(point_t *p, int64_t count, int64_t middle, int64_t dim, int64_t R)
{
    int64_t low = 0, high = count - 1;
    while (low < high) {
        const double pivot = key(p + low + (high - low) / 2, dim, R);
        int64_t i = low, j = high;
        while (i <= j) {
            while (key(p + i, dim, R) < pivot)
                i++;
            while (key(p + j, dim, R) > pivot)
                j--;
            if (i <= j) {
                point_t t = p[i];
                p[i] = p[j];
                p[j] = t;
                i++, j--;
            }
        }
        if (middle <= j)
            high = j;
        else if (middle >= i)
            low = i;
        else
            return;
    }
}

static void build(const frame_t *f, point_t *p, int64_t count, int64_t b)
{
    const int64_t R = f->rows;
    int64_t *least = f->box_least + b * R, *most = f->box_most + b * R;
    double low = p[0].paid, high = p[0].paid;
    for (int64_t r = 0; r < R; r++)
        least[r] = most[r] = p[0].use[r];
    for (int64_t t = 1; t < count; t++) {
        low = p[t].paid < low ? p[t].paid : low;
        high = p[t].paid > high ? p[t].paid : high;
        for (int64_t r = 0; r < R; r++) {
            least[r] = p[t].use[r] < least[r] ? p[t].use[r] : least[r];
            most[r] = p[t].use[r] > most[r] ? p[t].use[r] : most[r];
        }
    }
    f->box_paid[b] = low;
    if (count <= f->leaf)
        return;
    int64_t dim = R;
    double widest = high - low;
    for (int64_t r = 0; r < R; r++) {
        const double p_r = f->price[r] < 0 ? -f->price[r] : f->price[r];
        const double width = p_r * ((double)most[r] - (double)least[r]);
        if (width > widest)
            widest = width, dim = r;
    }
    const int64_t middle = count / 2;
    halve(p, count, middle, dim, R);
    build(f, p, middle, 2 * b + 1);
    build(f, p + middle, count - middle, 2 * b + 2);
}

PyObject *several_table(PyObject *self, PyObject *args)
{
    (void)self;
    Py_ssize_t address;
    if (!PyArg_ParseTuple(args, "n", &address))
        return NULL;
    const frame_t *f = (const frame_t *)address;
    const int64_t R = f->rows;
    if (R > 4)
        return PyErr_Format(PyExc_ValueError, "several_table takes at most 4 rows");
    point_t *points = malloc((size_t)(f->points ? f->points : 1) * sizeof *points);
    if (!points)
        return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS
    for (int64_t t = 0; t < f->points; t++) {
        points[t].paid = f->point_paid[t];
        for (int64_t r = 0; r < R; r++)
            points[t].use[r] = f->point_use[t * R + r];
    }
    if (f->points)
        build(f, points, f->points, 0);
    for (int64_t t = 0; t < f->points; t++) {
        f->point_paid[t] = points[t].paid;
        for (int64_t r = 0; r < R; r++)
            f->point_use[t * R + r] = points[t].use[r];
    }
    Py_END_ALLOW_THREADS
    free(points);
    Py_RETURN_NONE;
}
