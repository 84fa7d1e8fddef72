/* Interactions: the frame that quadratic_model.py fills (64-bit fields, in this order), and an allocation under way. */
#ifndef ALLOCATOR_QUADRATIC_H
#define ALLOCATOR_QUADRATIC_H

#include <stdint.h>

typedef struct {
    int64_t groups, choices, rows, rank; /* G, n, R, r */
    const int64_t *start;                /* [G + 1] */
    const int64_t *group;                /* [n] */
    const double *value;                 /* [n] */
    const double *matrix;                /* W [n, n], or NULL */
    const float *thin;                   /* the same in less memory, or NULL; without both: vectors and pairs */
    const double *vectors;               /* [n, r] */
    const double *sign;                  /* [r]: eigenvalues */
    const int64_t *first, *partner;      /* [n + 1], [pairs from both ends]: ascending within a choice */
    const double *worth;                 /* beside partner */
    const double *column;                /* [n, R] */
    const double *lo, *hi, *size;        /* [R] */
    const double *least;                 /* [1]: a smaller gain is rounding */
} model_t;

/* field [n] with a matrix, thin or not, else sum [r] = Σ sign·vectors[taken]. */
typedef struct {
    const model_t *model;
    int64_t *taken; /* [G] */
    double *field, *sum, *use, *gain, *step;
    double *kept_field, *kept_sum, *kept_use, kept_total; /* of state_keep */
    int64_t *kept_taken;
    char *touched; /* [G]: moved since someone cleared it */
    double total;  /* Σ value + Σ W */
    uint64_t random;
    double deadline;
    int64_t polls;
} state_t;

int state_open(state_t *s, const model_t *m, int64_t *taken, uint64_t seed, double seconds);
void state_close(state_t *s);
void state_set(state_t *s, const int64_t *taken);
void state_move(state_t *s, int64_t row);
void state_keep(state_t *s);
void state_back(state_t *s);

int held(const model_t *m); /* whether W is, as a matrix */
double gain_of(const state_t *s, int64_t row);
double cross_of(const state_t *s, int64_t a, int64_t b); /* what two changes add beyond their gains */
double excess_of(const model_t *m, const double *use, const double *change, const double *change2);
const double *step_of(state_t *s, int64_t in, int64_t out); /* W's row of `in` less that of `out`, where W is held */
void change_of(const state_t *s, int64_t row, double *change);
int out_of_time(state_t *s);

double draw(state_t *s);                   /* in [0, 1) */
int64_t draw_below(state_t *s, int64_t n); /* 0 … n − 1 */

int repair(state_t *s); /* 1: every row is kept */
void descend(state_t *s, int touched); /* touched: from these groups alone */
int climb(state_t *s, int64_t kicks, int64_t *best); /* best [G]: room; 1: every row is kept */

#endif
