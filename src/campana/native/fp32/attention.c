/* Attention of fp32 numbers over the segments of a pack, causal or not, forward and backward, for CPUs with AVX2 and FMA.

   As in bf16 (bf16/attention.c), without its pairs: every product is `product`, sums in registers of 6 rows by 16 columns at a time.
   Scores lie with keys down and queries across, so that a query's maximum and sum run down a column and nothing is ever added across a
   register. What a block of queries needs stays in the second cache; no (L x L) matrix exists.

   Legend: as in segments.h; D a multiple of 8, at most 256. */

#include "common.h"

typedef float number;
#include "../segments.h"

/* ---- products --------------------------------------------------------------------------------------------------------------------- */

/* c (rows x 8 columns) = or += a (rows x inner) times b (inner x 8 columns). */
INLINE void tile(const int rows, const int columns, int64_t inner, const float *a, int64_t lda, const float *b, int64_t ldb, float *c,
                 int64_t ldc, int add) {
  f8x sum[6][2];
  for (int r = 0; r < rows; r++)
    for (int n = 0; n < columns; n++) sum[r][n] = add ? read(c + r * ldc + 8 * n) : all(0);
  for (int64_t i = 0; i < inner; i++) {
    f8x right[2];
    for (int n = 0; n < columns; n++) right[n] = read(b + i * ldb + 8 * n);
    for (int r = 0; r < rows; r++) {
      const f8x left = all(a[r * lda + i]);
      for (int n = 0; n < columns; n++) sum[r][n] = plus(left, right[n], sum[r][n]);
    }
  }
  for (int r = 0; r < rows; r++)
    for (int n = 0; n < columns; n++) write(c + r * ldc + 8 * n, sum[r][n]);
}

#define ROWS(R) \
  case R: tile(R, columns, inner, a, lda, b, ldb, c, ldc, add); break

INLINE void strip(const int columns, int64_t rows, int64_t inner, const float *a, int64_t lda, const float *b, int64_t ldb, float *c,
                  int64_t ldc, int add) {
  int64_t left = (rows + 5) / 6;
  for (; rows > 0; left--) {
    const int64_t now = (rows + left - 1) / left; /* 6, or 5 where that evens out the last */
    switch (now) {
      ROWS(1); ROWS(2); ROWS(3); ROWS(4); ROWS(5); ROWS(6);
    }
    a += now * lda, c += now * ldc, rows -= now;
  }
}

static void product(int64_t rows, int64_t columns, int64_t inner, const float *a, int64_t lda, const float *b, int64_t ldb, float *c,
                    int64_t ldc, int add) {
  int64_t n = 0;
  for (; n + 16 <= columns; n += 16) strip(2, rows, inner, a, lda, b + n, ldb, c + n, ldc, add);
  if (n < columns) strip(1, rows, inner, a, lda, b + n, ldb, c + n, ldc, add);
}

/* ---- layouts ---------------------------------------------------------------------------------------------------------------------- */

/* r[j][i] = r[i][j] of 8 x 8 numbers. */
INLINE void transpose(f8x r[8]) {
  f8x t[8];
  for (int i = 0; i < 8; i += 2) t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]), t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; j++) {
      r[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0x44);
      r[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0xee);
    }
  for (int i = 0; i < 4; i++) {
    t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
    t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
  }
  memcpy(r, t, sizeof(t));
}

/* (rows, D) -> (D, width). Rows up to a multiple of 8 are zero. */
static void turned(const float *x, int64_t stride, int64_t rows, int64_t size, float *out, int64_t width) {
  for (int64_t i = 0; i < rows; i += 8)
    for (int64_t d = 0; d < size; d += 8) {
      f8x r[8];
      for (int n = 0; n < 8; n++) r[n] = i + n < rows ? read(x + (i + n) * stride + d) : all(0);
      transpose(r);
      for (int n = 0; n < 8; n++) write(out + (d + n) * width + i, r[n]);
    }
}

/* (D, width), each column times its factor -> the first `rows` rows of (rows, D). */
static void turned_back(const float *x, int64_t width, int64_t rows, int64_t size, const float *factor, float *out, int64_t stride) {
  for (int64_t i = 0; i < rows; i += 8)
    for (int64_t d = 0; d < size; d += 8) {
      f8x r[8];
      for (int n = 0; n < 8; n++) r[n] = read(factor + i) * read(x + (d + n) * width + i);
      transpose(r);
      for (int n = 0; n < least(8, rows - i); n++) write(out + (i + n) * stride + d, r[n]);
    }
}

static void rows_of(const float *x, int64_t stride, int64_t rows, int64_t size, float *out) {
  for (int64_t i = 0; i < rows; i++) memcpy(out + i * size, x + i * stride, (size_t)size * sizeof(float));
}

/* Hide what a query must not see: scores[key][query], the first of each given by its place in the segment. */
static void hide(float *scores, int64_t keys, int64_t columns, int64_t width, int64_t key, int64_t query, int64_t window) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), none = _mm256_set1_epi32(-1);
  for (int64_t j = 0; j < keys; j++)
    for (int64_t i = 0; i < columns; i += 8) {
      const __m256i distance = _mm256_add_epi32(lane, _mm256_set1_epi32((int)(query + i - key - j)));
      __m256i seen = _mm256_cmpgt_epi32(distance, none);
      if (window) seen = _mm256_and_si256(seen, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)window), distance));
      float *at = scores + j * width + i;
      write(at, _mm256_blendv_ps(all(HIDDEN), read(at), _mm256_castsi256_ps(seen)));
    }
}

/* ---- forward ---------------------------------------------------------------------------------------------------------------------- */

typedef struct {
  float queries[LARGEST_HEAD * QUERIES], scores[KEYS * QUERIES], sum[LARGEST_HEAD * QUERIES];
  float largest[QUERIES], total[QUERIES], factor[QUERIES];
} Forward;

/* Scores -> probabilities that are not yet divided, in their place; `largest`, `total` and `factor` (of what was summed before). */
static void soften(Forward *at, int64_t keys, int64_t columns, float by) {
  const f8x times = all(by);
  for (int64_t i = 0; i < columns; i += 8) {
    const f8x before = read(at->largest + i);
    f8x now = before, other = before, sum = all(0);
    for (int64_t j = 0; j < keys; j += 2) {
      now = _mm256_max_ps(now, read(at->scores + j * QUERIES + i));
      if (j + 1 < keys) other = _mm256_max_ps(other, read(at->scores + (j + 1) * QUERIES + i));
    }
    now = _mm256_max_ps(now, other);
    const f8x shift = now * times;
    for (int64_t j = 0; j < keys; j++) {
      float *score = at->scores + j * QUERIES + i;
      const f8x share = power_of_two(_mm256_fmsub_ps(read(score), times, shift));
      sum += share;
      write(score, share);
    }
    const f8x factor = power_of_two((before - now) * times); /* exactly 1 where these keys move nothing */
    write(at->factor + i, factor);
    write(at->largest + i, now);
    write(at->total + i, plus(read(at->total + i), factor, sum));
  }
}

static void forward_of(const Problem *p, const Task *t, const float *values, int64_t width, float *out, const int64_t *out_strides,
                       float *lse, Forward *at) {
  const int64_t begin = p->bounds[t->segment], kv_head = t->head / (p->heads / p->kv_heads), size = p->size;
  const int64_t asked = begin + t->first - (t->segment + 1) * p->skip, num = p->bounds[p->segments] - p->segments * p->skip;
  const int64_t rows = t->stop - t->first, columns = up(rows, 8);
  const float by = p->scale * LOG2_E;
  turned(row(&p->q, asked, t->head), p->q.token, rows, size, at->queries, QUERIES);
  for (int64_t i = 0; i < QUERIES; i++) at->largest[i] = LOWEST, at->total[i] = 0;
  int started = 0;
  for (int64_t j = lowest_key(t->first / QUERIES * QUERIES, p->window); j < t->keys; j += KEYS) {
    const int64_t keys = least(KEYS, t->keys - j);
    product(keys, columns, size, row(&p->k, begin + j, kv_head), p->k.token, at->queries, QUERIES, at->scores, QUERIES, 0);
    if (must_hide(p, t->first, t->stop, j, j + keys)) hide(at->scores, keys, columns, QUERIES, j, t->first, p->window);
    soften(at, keys, columns, by);
    if (started)
      for (int64_t d = 0; d < size; d++)
        for (int64_t i = 0; i < columns; i += 8) write(at->sum + d * QUERIES + i, read(at->sum + d * QUERIES + i) * read(at->factor + i));
    product(size, columns, keys, values + j, width, at->scores, QUERIES, at->sum, QUERIES, started);
    started = 1;
  }
  for (int64_t i = 0; i < columns; i++) at->factor[i] = 1.0f / at->total[i];
  turned_back(at->sum, QUERIES, rows, size, at->factor, out + asked * out_strides[0] + t->head * out_strides[1], out_strides[0]);
  for (int64_t i = 0; i < rows; i++) lse[t->head * num + asked + i] = at->largest[i] * by + log2f(at->total[i]);
}

/* ---- backward --------------------------------------------------------------------------------------------------------------------- */

typedef struct {
  float queries[LARGEST_HEAD * QUERIES], grads[LARGEST_HEAD * QUERIES];         /* (D, QUERIES) */
  float query_rows[QUERIES * LARGEST_HEAD], grad_rows[QUERIES * LARGEST_HEAD]; /* (QUERIES, D) */
  float scores[KEYS * QUERIES], grad_scores[KEYS * QUERIES];                   /* and then probabilities, and the scores' gradient */
  float sum[LARGEST_HEAD * QUERIES];                                           /* of the queries' gradient, turned */
  float lse[QUERIES], delta[QUERIES], scale[QUERIES];
} Backward;

/* delta: the sum over D of a query's result and that result's gradient, which is the sum of probability times its gradient. */
static void deltas(const float *out, int64_t out_stride, const float *grad, int64_t grad_stride, int64_t rows, int64_t size, float *delta) {
  for (int64_t i = 0; i < rows; i++) {
    f8x sum = all(0);
    for (int64_t d = 0; d < size; d += 8) sum = plus(read(out + i * out_stride + d), read(grad + i * grad_stride + d), sum);
    delta[i] = sum_of(sum);
  }
}

/* Probabilities from scores, and the scores' gradient from that of probabilities, each in its place. */
static void slope(Backward *at, int64_t keys, int64_t from, int64_t columns, float by) {
  const f8x times = all(by);
  for (int64_t i = from; i < columns; i += 8) {
    const f8x lse = read(at->lse + i), delta = read(at->delta + i);
    for (int64_t j = 0; j < keys; j++) {
      const int64_t cell = j * QUERIES + i;
      const f8x probability = power_of_two(_mm256_fmsub_ps(read(at->scores + cell), times, lse));
      write(at->scores + cell, probability);
      write(at->grad_scores + cell, probability * (read(at->grad_scores + cell) - delta));
    }
  }
}

/* One block of queries of one head: adds to the sums of keys and values, and writes the queries' gradient. */
static void backward_block(const Problem *p, const Gradients *g, int64_t segment, int64_t head, int64_t first, int64_t stop,
                           const float *keys_turned, int64_t width, float *sum_k, float *sum_v, Backward *at) {
  const int64_t begin = p->bounds[segment], kv_head = head / (p->heads / p->kv_heads), size = p->size, rows = stop - first;
  const int64_t columns = up(rows, 8);
  const float by = p->scale * LOG2_E;
  const float *q = row(&p->q, begin + first, head), *grad = row(&g->grad, begin + first, head);
  turned(q, p->q.token, rows, size, at->queries, QUERIES);
  turned(grad, g->grad.token, rows, size, at->grads, QUERIES);
  rows_of(q, p->q.token, rows, size, at->query_rows);
  rows_of(grad, g->grad.token, rows, size, at->grad_rows);
  for (int64_t i = 0; i < QUERIES; i++)
    at->lse[i] = i < rows ? g->lse[head * p->bounds[p->segments] + begin + first + i] : 1e30f, at->delta[i] = 0, at->scale[i] = p->scale;
  deltas(row(&g->out, begin + first, head), g->out.token, grad, g->grad.token, rows, size, at->delta);
  const int64_t seen = keys_of(p, segment, stop);
  int started = 0;
  for (int64_t j = lowest_key(first, p->window); j < seen; j += KEYS) {
    const int64_t keys = least(KEYS, seen - j);
    const int64_t from = started && p->causal ? most(0, j - first) / 8 * 8 : 0; /* queries before these keys see none of them */
    float *scores = at->scores + from, *grad_scores = at->grad_scores + from;
    product(keys, columns - from, size, row(&p->k, begin + j, kv_head), p->k.token, at->queries + from, QUERIES, scores, QUERIES, 0);
    product(keys, columns - from, size, row(&p->v, begin + j, kv_head), p->v.token, at->grads + from, QUERIES, grad_scores, QUERIES, 0);
    if (must_hide(p, first, stop, j, j + keys)) hide(scores, keys, columns - from, QUERIES, j, first + from, p->window);
    slope(at, keys, from, columns, by);
    product(keys, size, rows - from, scores, QUERIES, at->grad_rows + from * size, size, sum_v + j * size, size, 1);
    product(keys, size, rows - from, grad_scores, QUERIES, at->query_rows + from * size, size, sum_k + j * size, size, 1);
    product(size, columns - from, keys, keys_turned + j, width, grad_scores, QUERIES, at->sum + from, QUERIES, started);
    started = 1;
  }
  turned_back(at->sum, QUERIES, rows, size, at->scale, g->grad_q + ((begin + first) * p->heads + head) * size, p->heads * size);
}

/* Adds up the tasks' sums, the earliest first: a gradient of keys or values of one segment and head. */
static void add_up(const float *const *sums, const int64_t *seen, int64_t num, int64_t length, int64_t size, float scale, float *out,
                   int64_t stride) {
  for (int64_t j = 0; j < length; j++)
    for (int64_t d = 0; d < size; d += 8) {
      f8x sum = all(0);
      for (int64_t n = 0; n < num; n++)
        if (j < seen[n]) sum += read(sums[n] + j * size + d);
      write(out + j * stride + d, sum * all(scale));
    }
}

#include "../segments_tasks.h"
