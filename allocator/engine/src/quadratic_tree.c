/* Depth-first branch and bound on a convex minorant; every node leaves a record that numpy can check. */
#include "engine.h"
#include "quadratic_tree.h"
#include <math.h>
#include <string.h>

enum { ROUNDS = 2, ROOT_ROUNDS = 12 };

static int record(search_t *s, level_t *v, int64_t above, int64_t branch, double bound)
{
    const tree_t *t = s->t;
    int64_t at = t->counts[0];
    if (at >= t->most)
        return 0;
    t->counts[0]++;
    t->parent[at] = above;
    t->branch[at] = branch;
    t->bound[at] = bound;
    memcpy(t->point + at * t->choices, v->y, (size_t)t->choices * sizeof(double));
    memcpy(t->price + at * t->sides, s->price, (size_t)t->sides * sizeof(double));
    v->record = at;
    return 1;
}

/* The group whose parts are furthest from one choice, its choices by ascending cost. */
static void branch_on(search_t *s, level_t *v)
{
    const tree_t *t = s->t;
    int64_t n = t->choices, best = -1, widest = -1, most = 1;
    double far = 0;
    for (int64_t g = 0; g < t->groups; g++) {
        if (v->is_fixed[g])
            continue;
        double score = 0;
        int64_t left = 0;
        for (int64_t k = t->start[g]; k < t->start[g + 1]; k++) {
            left += v->alive[k];
            if (v->y[k] == 0)
                continue;
            score += v->y[k] * t->curved[k * n + k];
            for (int64_t l = t->start[g]; l < t->start[g + 1]; l++)
                score -= v->y[k] * t->curved[k * n + l] * v->y[l];
        }
        if (score > far) {
            far = score;
            best = g;
        }
        if (left > most) {
            most = left;
            widest = g;
        }
    }
    if (best < 0)
        best = widest;
    v->children = v->next = 0;
    if (best < 0)
        return;
    for (int64_t k = t->start[best]; k < t->start[best + 1]; k++) {
        if (!v->alive[k])
            continue;
        int64_t at = v->children++;
        for (; at > 0 && s->cost[v->child[at - 1]] > s->cost[k]; at--)
            v->child[at] = v->child[at - 1];
        v->child[at] = k;
    }
}

/* 1: open, with children. 0: closed. 2: open and cannot be split. −1: no room for the record. */
static int process(search_t *s, level_t *v, int64_t above, int64_t branch, int root)
{
    const tree_t *t = s->t;
    double bound = -INFINITY;
    for (int round = 0; round < (root ? ROOT_ROUNDS : ROUNDS); round++) {
        sweep(s, v, root ? 8 * t->sweeps : t->sweeps);
        double here = bound_at(s, v);
        if (!record(s, v, round ? v->record : above, round ? -1 : branch, here))
            return -1;
        bound = here > bound ? here : bound;
        v->bound = bound;
        if (here >= target_of(s))
            return 0;
        int64_t gone = exclude(s, v, target_of(s) - here);
        if (gone < 0)
            return 0;
        settle(s, v);
        if (!gone)
            break;
    }
    branch_on(s, v);
    if (v->children)
        return 1;
    /* every group is fixed: an allocation, which the rows allow or not */
    double total = 0;
    for (int64_t i = 0; i < t->sides; i++) {
        double use = 0;
        for (int64_t k = 0; k < t->choices; k++)
            use += v->alive[k] ? t->column[i * t->choices + k] : 0.0;
        if (use > t->limit[i] + 1e-13)
            return 0;
    }
    settle(s, v);
    for (int64_t i = 0; i < t->sides; i++)
        v->dual[i] = 0;
    total = bound_at(s, v);
    if (!record(s, v, v->record, -1, total))
        return -1;
    if (t->counts[4] == t->most_leaves)
        return -1;
    int64_t *leaf = t->leaf + t->counts[4]++ * t->groups;
    for (int64_t g = 0; g < t->groups; g++)
        for (int64_t k = t->start[g]; k < t->start[g + 1]; k++)
            if (v->alive[k])
                leaf[g] = k;
    if (total < *t->worth - t->options[3]) {
        t->counts[3] = 1;
        *t->worth = total;
        memcpy(t->taken, leaf, (size_t)t->groups * sizeof *leaf);
    }
    return 0;
}

static void inherit(const tree_t *t, level_t *to, const level_t *from)
{
    size_t m = (size_t)t->choices, sides = (size_t)t->sides;
    memcpy(to->alive, from->alive, m);
    memcpy(to->y, from->y, m * sizeof(double));
    memcpy(to->my, from->my, m * sizeof(double));
    memcpy(to->fixed_n, from->fixed_n, m * sizeof(double));
    memcpy(to->paid, from->paid, sides * sizeof(double));
    memcpy(to->dual, from->dual, sides * sizeof(double));
    memcpy(to->is_fixed, from->is_fixed, (size_t)t->groups);
}

static void search(search_t *s)
{
    const tree_t *t = s->t;
    int64_t depth = 0;
    level_t *root = s->levels;
    settle(s, root);
    int state = process(s, root, -1, -1, 1);
    memcpy(t->begin, root->y, (size_t)t->choices * sizeof(double));
    memcpy(t->left, root->alive, (size_t)t->choices);
    t->counts[1] = 1;
    *t->lowest = state == 0 ? INFINITY : root->bound;
    if (state != 1) {
        t->counts[2] = state == 0;
        return;
    }
    while (depth >= 0) {
        level_t *v = s->levels + depth;
        if (v->next == v->children) {
            depth--;
            continue;
        }
        if (t->counts[1] % 64 == 0 && now_seconds() > s->deadline)
            break;
        int64_t k = v->child[v->next];
        level_t *below = v + 1;
        inherit(t, below, v);
        for (int64_t l = t->start[t->group[k]]; l < t->start[t->group[k] + 1]; l++)
            below->alive[l] = l == k;
        settle(s, below);
        state = process(s, below, v->record, k, 0);
        t->counts[1]++;
        if (state < 0)
            break;
        v->next++;
        if (state == 1)
            depth++;
    }
    double lowest = INFINITY;
    for (; depth >= 0; depth--)
        if (s->levels[depth].next < s->levels[depth].children && s->levels[depth].bound < lowest)
            lowest = s->levels[depth].bound;
    *t->lowest = lowest;
    t->counts[2] = lowest == INFINITY;
}

static int prepare(search_t *s, const tree_t *t)
{
    size_t m = (size_t)t->choices, groups = (size_t)t->groups, sides = (size_t)t->sides, count = groups + 2;
    size_t reals = 3 * m + 2 * sides, bytes = m + groups;
    s->t = t;
    s->levels = calloc(count, sizeof *s->levels);
    double *r = calloc(count * reals + m + 2 * sides + 1, sizeof *r);
    int64_t *children = calloc(count * m, sizeof *children);
    char *c = calloc(count * bytes, 1);
    void **all = malloc(3 * sizeof *all);
    s->memory = all;
    if (all) {
        all[0] = r;
        all[1] = children;
        all[2] = c;
    }
    if (!s->levels || !r || !children || !c || !all) {
        if (!all) {
            free(r);
            free(children);
            free(c);
        }
        return -1;
    }
    for (size_t d = 0; d < count; d++) {
        level_t *v = s->levels + d;
        v->y = r + d * reals;
        v->my = v->y + m;
        v->fixed_n = v->my + m;
        v->paid = v->fixed_n + m;
        v->dual = v->paid + sides;
        v->child = children + d * m;
        v->alive = c + d * bytes;
        v->is_fixed = v->alive + m;
    }
    s->cost = r + count * reals;
    s->use = s->cost + m;
    s->price = s->use + sides;
    level_t *root = s->levels;
    memset(root->alive, 1, m);
    for (size_t k = 0; k < m; k++) {
        root->y[k] = t->begin[k];
        for (size_t l = 0; l < m; l++)
            root->my[k] += t->curved[k * m + l] * t->begin[l];
    }
    return 0;
}

PyObject *quadratic_tree(PyObject *self, PyObject *args)
{
    (void)self;
    Py_ssize_t address;
    if (!PyArg_ParseTuple(args, "n", &address))
        return NULL;
    const tree_t *t = (const tree_t *)address;
    search_t s;
    memset(&s, 0, sizeof s);
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = prepare(&s, t);
    if (!failed) {
        s.deadline = now_seconds() + t->options[1];
        search(&s);
    }
    if (s.memory) {
        void **all = s.memory;
        for (int i = 0; i < 3; i++)
            free(all[i]);
        free(all);
    }
    free(s.levels);
    Py_END_ALLOW_THREADS
    if (failed)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}
