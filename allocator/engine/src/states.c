/* The list of states: every change of one group at a time, merged in order of falling slack. */
#include "search.h"
#include <stdlib.h>
#include <string.h>

enum { WIDEST = 16000000 };

static int reserve(Search *s, int64_t wanted)
{
    if (wanted <= s->room)
        return 0;
    int64_t room = wanted + wanted / 2 + 256;
    State **all[] = {&s->list, &s->next, &s->spare};
    for (int i = 0; i < 3; i++) {
        State *grown = realloc(*all[i], sizeof(State) * (size_t)room);
        if (!grown)
            return -1;
        *all[i] = grown;
    }
    s->room = room;
    return 0;
}

/* Two runs in order of falling slack into one, without what is undercut. */
static int64_t merge(const State *a, const State *a_end, const State *b, const State *b_end, State *out)
{
    State *o = out;
    double lowest = INFINITY;
    while (a < a_end && b < b_end) {
        const State *x = (a->slack > b->slack || (a->slack == b->slack && a->value <= b->value)) ? a++ : b++;
        if (x->value < lowest) {
            lowest = x->value;
            *o++ = *x;
        }
    }
    for (; a < a_end; a++)
        if (a->value < lowest)
            lowest = a->value, *o++ = *a;
    for (; b < b_end; b++)
        if (b->value < lowest)
            lowest = b->value, *o++ = *b;
    return o - out;
}

/* Forgets the nodes that no state leads to. */
static int collect_garbage(Search *s)
{
    uint32_t *place = malloc(sizeof(uint32_t) * (size_t)s->node_count + 4);
    if (!place)
        return -1;
    memset(place, 0, sizeof(uint32_t) * (size_t)s->node_count);
    if (s->best_node != NONE)
        place[s->best_node] = 1;
    for (int64_t i = 0; i < s->count; i++)
        if (s->list[i].node != NONE)
            place[s->list[i].node] = 1;
    for (int64_t i = s->node_count - 1; i >= 0; i--)
        if (place[i] && s->nodes[i].parent != NONE)
            place[s->nodes[i].parent] = 1;
    uint32_t kept = 0;
    for (int64_t i = 0; i < s->node_count; i++)
        if (place[i]) {
            Node n = s->nodes[i];
            if (n.parent != NONE)
                n.parent = place[n.parent];
            s->nodes[kept] = n;
            place[i] = kept++;
        }
    s->node_count = kept;
    if (s->best_node != NONE)
        s->best_node = place[s->best_node];
    for (int64_t i = 0; i < s->count; i++)
        if (s->list[i].node != NONE)
            s->list[i].node = place[s->list[i].node];
    free(place);
    return 0;
}

static int room_for_nodes(Search *s, int64_t wanted)
{
    if (s->node_count + wanted <= s->node_room)
        return 0;
    if (s->node_count + wanted > s->most_nodes) {
        if (collect_garbage(s))
            return -1;
        if (s->node_count + wanted > s->most_nodes - s->most_nodes / 4)
            return 2;
        if (s->node_count + wanted <= s->node_room)
            return 0;
    }
    int64_t room = 2 * (s->node_count + wanted);
    room = room > s->most_nodes ? s->most_nodes : room;
    Node *grown = realloc(s->nodes, sizeof(Node) * (size_t)room);
    if (!grown)
        return -1;
    s->nodes = grown;
    s->node_room = room;
    return 0;
}

/* All states with every surviving move of one group; `rest` are the slopes of the groups after it. */
int expand(Search *s, const Trade *trade, Slopes rest)
{
    int64_t runs = 0, used = 0, moves = trade->last - trade->first;
    if (moves + 2 > s->ends_room) {
        int64_t *grown = realloc(s->ends, sizeof(int64_t) * (size_t)(2 * moves + 16));
        if (!grown)
            return -1;
        s->ends = grown;
        s->ends_room = 2 * moves + 16;
    }
    for (int64_t m = trade->first - 1; m < trade->last; m++) { /* the first run is the list unchanged */
        if (reserve(s, used + s->count))
            return -1;
        uint32_t name = m < trade->first ? NONE : (uint32_t)m;
        int64_t cost = m < trade->first ? 0 : s->moves[m].cost;
        double value = m < trade->first ? 0 : s->moves[m].value;
        State *out = s->next + used;
        for (const State *x = s->list, *end = x + s->count; x < end; x++) {
            State y = {x->slack - cost, x->value + value, x->node, name};
            if (bound_of(y.value, y.slack, rest) < s->target)
                *out++ = y;
        }
        used = out - s->next;
        s->ends[runs++] = used;
        if (used > WIDEST)
            return 2;
    }
    s->out->states += used;
    do { /* pairs of runs, then pairs of those */
        int64_t begin = 0, made = 0, at = 0;
        for (int64_t r = 0; r < runs; r += 2) {
            int64_t mid = s->ends[r], end = r + 1 < runs ? s->ends[r + 1] : mid;
            at += merge(s->next + begin, s->next + mid, s->next + mid, s->next + end, s->spare + at);
            begin = end;
            s->ends[made++] = at;
        }
        runs = made;
        State *swap = s->next;
        s->next = s->spare;
        s->spare = swap;
    } while (runs > 1);
    State *swap = s->list;
    s->list = s->next;
    s->next = swap;
    s->count = s->ends[0];
    int stop = room_for_nodes(s, s->count);
    if (stop)
        return stop;
    for (State *x = s->list, *end = x + s->count; x < end; x++)
        if (x->move != NONE) {
            s->nodes[s->node_count] = (Node){x->node, x->move};
            x->node = (uint32_t)s->node_count++;
        }
    return 0;
}

/* The last state that keeps the capacity is the best one: value falls along the list. */
void improve(Search *s)
{
    int64_t low = 0, high = s->count;
    while (low < high) {
        int64_t mid = (low + high) / 2;
        if (s->list[mid].slack >= 0)
            low = mid + 1;
        else
            high = mid;
    }
    if (low && s->list[low - 1].value < s->best) {
        s->best = s->list[low - 1].value;
        s->best_node = s->list[low - 1].node;
        aim(s);
    }
}

/* Keeps those nearest to the capacity and some of the others; only to find good allocations, never to prove. */
void thin_out(Search *s)
{
    int64_t edge = 0, high = s->count, kept = 0, half = s->cap / 2;
    while (edge < high) {
        int64_t mid = (edge + high) / 2;
        if (s->list[mid].slack >= 0)
            edge = mid + 1;
        else
            high = mid;
    }
    int64_t stride = s->count / half + 1;
    for (int64_t i = 0; i < s->count; i++)
        if ((i >= edge - half / 2 && i < edge + half / 2) || i % stride == 0)
            s->list[kept++] = s->list[i];
    s->count = kept;
    s->thinned = 1;
}

int begin(Search *s)
{
    s->thinned = 0;
    s->node_count = 0;
    s->best_node = NONE;
    s->count = 1;
    if (reserve(s, 1))
        return -1;
    s->list[0] = (State){s->slack, 0, NONE, NONE};
    return 0;
}
