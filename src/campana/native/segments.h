/* What is alike in attention over the segments of a pack for all types of numbers: what is asked, which queries see which keys, and the
   tasks. A file for a type says

     typedef float number;
     #include "../segments.h"
     ... forward_of, backward_block, turned, add_up, and the types Forward and Backward, a thread's space for each
     #include "../segments_tasks.h"

   Results depend neither on the number of threads nor on what else is in the pack: the tasks, and the order of every sum, follow from
   a segment's length alone.

   Legend: T tokens of the pack, H query heads, K key/value heads, G = H / K, D head size, L tokens of a segment. q, out: (T, H, D); k, v:
   (T, K, D); D is contiguous, the other strides are given, in numbers. lse: (H, T), the base-2 logarithm of a query's sum of exponentials. */

#ifndef CAMPANA_SEGMENTS_H
#define CAMPANA_SEGMENTS_H

#include "base.h"

enum { QUERIES = 64, KEYS = 128, LARGEST_HEAD = 256 };
#define HIDDEN (-3e38f)
#define LOWEST (-1e30f)

typedef struct {
  const number *data;
  int64_t token, head; /* strides */
} Tensor;

typedef struct {
  Tensor q, k, v;
  const int32_t *bounds; /* segments + 1 first tokens */
  int64_t segments, heads, kv_heads, size, window; /* window: keys that a query sees, its own included; 0: all before it */
  int64_t skip; /* forward: the first so many tokens of each segment are keys alone; q, out and lse are without them. backward: 0 */
  float scale;
  int causal, threads; /* not causal: a query sees its whole segment, and there is no window */
} Problem;

typedef struct {
  int64_t segment, head, first, stop; /* queries of the segment */
  int64_t keys;                       /* the segment's first so many are seen */
  int64_t place;                      /* of its sums of gradients, in tokens */
} Task;

typedef struct {
  Tensor out, grad;
  const float *lse;
  number *grad_q, *grad_k, *grad_v; /* contiguous */
} Gradients;

/* Whether some query of [first, stop) does not see some key of [low, high). */
INLINE int must_hide(const Problem *p, int64_t first, int64_t stop, int64_t low, int64_t high) {
  return p->causal && (high > first + 1 || (p->window && stop - 1 - low >= p->window));
}

INLINE int64_t lowest_key(int64_t first, int64_t window) { return window ? most(0, first - window + 1) / 2 * 2 : 0; }

static void *space(int64_t bytes) { return aligned_alloc(64, (size_t)up(bytes + 64, 64)); }

/* Where a segment's values, turned, begin: (K, D, width) after those of the segments before it, each widened to 32 tokens. */
static int64_t widths(const Problem *p, int64_t *start) {
  int64_t sum = 0;
  for (int64_t s = 0; s < p->segments; s++) start[s] = sum, sum += up(p->bounds[s + 1] - p->bounds[s], 32);
  return sum;
}

INLINE int64_t length_of(const Problem *p, int64_t segment) { return p->bounds[segment + 1] - p->bounds[segment]; }

/* Keys that queries before `stop` see, from the segment's first (or the window's) on. */
INLINE int64_t keys_of(const Problem *p, int64_t segment, int64_t stop) { return p->causal ? stop : length_of(p, segment); }
INLINE const number *row(const Tensor *x, int64_t token, int64_t head) { return x->data + token * x->token + head * x->head; }

static int by_work(const void *a, const void *b) {
  const Task *x = a, *y = b;
  const int64_t work_x = x->keys * (x->stop - x->first), work_y = y->keys * (y->stop - y->first);
  return work_x != work_y ? (work_x < work_y ? 1 : -1) : (x->place < y->place ? -1 : 1);
}

#endif
