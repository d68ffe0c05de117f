/* Attention of bf16 numbers over the segments of a pack, causal or not, forward and backward, for CPUs with AVX512-BF16.

   Every product is `product`: sums of pairs by VDPBF16PS into fp32 registers, 6 rows by 64 columns at a time. Scores lie with keys down
   and queries across, so that a query's maximum and sum run down a column and nothing is ever added across a register. What a block of
   queries needs stays in the second cache; no (L x L) matrix exists. Scores, softmax and all sums are fp32, factors of products bf16.

   Legend: as in segments.h; D a multiple of 16, at most 256. Pairs: a word of 32 bits holds two bf16 numbers that a product sums over, the
   earlier low. */

#include "common.h"

typedef bf16 number;
#include "../segments.h"

typedef uint32_t pair;

/* ---- products --------------------------------------------------------------------------------------------------------------------- */

/* c (rows x 16 columns) = or += a (rows x 2 pairs) times b (pairs x 16 columns, paired). Strides in numbers of each type. */
INLINE void tile(const int rows, const int columns, int64_t pairs, const bf16 *a, int64_t lda, const pair *b, int64_t ldb, float *c,
                 int64_t ldc, int add) {
  f16x sum[6][4];
  for (int r = 0; r < rows; r++)
    for (int n = 0; n < columns; n++) sum[r][n] = add ? _mm512_loadu_ps(c + r * ldc + 16 * n) : _mm512_setzero_ps();
  for (int64_t p = 0; p < pairs; p++) {
    __m512bh right[4];
    for (int n = 0; n < columns; n++) right[n] = (__m512bh)_mm512_loadu_si512(b + p * ldb + 16 * n);
    for (int r = 0; r < rows; r++) {
      int32_t two;
      memcpy(&two, a + r * lda + 2 * p, 4);
      const __m512bh left = (__m512bh)_mm512_set1_epi32(two);
      for (int n = 0; n < columns; n++) sum[r][n] = _mm512_dpbf16_ps(sum[r][n], left, right[n]);
    }
  }
  for (int r = 0; r < rows; r++)
    for (int n = 0; n < columns; n++) _mm512_storeu_ps(c + r * ldc + 16 * n, sum[r][n]);
}

#define ROWS(R) \
  case R: tile(R, columns, pairs, a, lda, b, ldb, c, ldc, add); break

INLINE void strip(const int columns, int64_t rows, int64_t pairs, const bf16 *a, int64_t lda, const pair *b, int64_t ldb, float *c,
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

static void product(int64_t rows, int64_t columns, int64_t pairs, const bf16 *a, int64_t lda, const pair *b, int64_t ldb, float *c,
                    int64_t ldc, int add) {
  for (int64_t n = 0; n < columns; n += 64) {
    switch (least(64, columns - n) / 16) {
      case 1: strip(1, rows, pairs, a, lda, b + n, ldb, c + n, ldc, add); break;
      case 2: strip(2, rows, pairs, a, lda, b + n, ldb, c + n, ldc, add); break;
      case 3: strip(3, rows, pairs, a, lda, b + n, ldb, c + n, ldc, add); break;
      case 4: strip(4, rows, pairs, a, lda, b + n, ldb, c + n, ldc, add); break;
    }
  }
}

/* ---- layouts ---------------------------------------------------------------------------------------------------------------------- */

/* out[j][i] = in[i][j] of 16 x 16 words of 32 bits. */
INLINE void transpose(__m512i r[16]) {
  __m512i t[16];
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; i++) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
    t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
    t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
    t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
  }
  for (int i = 0; i < 8; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
    r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
  }
}

/* (rows, D) -> pairs of D down, rows across: out[D / 2][width]. Rows up to `width`, a multiple of 16, are zero. */
static void pairs_of_features(const bf16 *x, int64_t stride, int64_t rows, int64_t size, pair *out, int64_t width) {
  for (int64_t i = 0; i < width; i += 16)
    for (int64_t d = 0; d < size; d += 32) {
      const int64_t words = least(16, (size - d) / 2);
      const __mmask16 mask = (__mmask16)((1u << words) - 1);
      __m512i r[16];
      for (int n = 0; n < 16; n++)
        r[n] = i + n < rows ? _mm512_maskz_loadu_epi32(mask, x + (i + n) * stride + d) : _mm512_setzero_si512();
      transpose(r);
      for (int n = 0; n < words; n++) _mm512_storeu_si512(out + (d / 2 + n) * width + i, r[n]);
    }
}

/* Two rows of 16 bf16 numbers -> 16 pairs. */
INLINE __m512i paired(__m256i low, __m256i high) {
  return _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
}

INLINE __m256i row_or_zero(const bf16 *x, int exists) { return exists ? _mm256_loadu_si256((const __m256i *)x) : _mm256_setzero_si256(); }

/* (rows, D) -> pairs of rows down, D across: out[width / 2][D]. Rows up to `width` are zero. */
static void pairs_of_rows(const bf16 *x, int64_t stride, int64_t rows, int64_t size, pair *out, int64_t width) {
  for (int64_t i = 0; i < width; i += 2)
    for (int64_t d = 0; d < size; d += 16)
      _mm512_storeu_si512(out + i / 2 * size + d, paired(row_or_zero(x + i * stride + d, i < rows),
                                                         row_or_zero(x + (i + 1) * stride + d, i + 1 < rows)));
}

/* (rows, D) -> (D, width). Rows up to `width`, a multiple of 32, are zero. */
static void turned(const bf16 *x, int64_t stride, int64_t rows, int64_t size, bf16 *out, int64_t width) {
  for (int64_t i = 0; i < width; i += 32)
    for (int64_t d = 0; d < size; d += 16) {
      __m512i r[16];
      for (int n = 0; n < 16; n++)
        r[n] = paired(row_or_zero(x + (i + 2 * n) * stride + d, i + 2 * n < rows),
                      row_or_zero(x + (i + 2 * n + 1) * stride + d, i + 2 * n + 1 < rows));
      transpose(r);
      for (int n = 0; n < 16; n++) _mm512_storeu_si512(out + (d + n) * width + i, r[n]);
    }
}

/* (D, width) fp32, each column times its factor -> the first `rows` rows of (rows, D) bf16. */
static void turned_back(const float *x, int64_t width, int64_t rows, int64_t size, const float *factor, bf16 *out, int64_t stride) {
  for (int64_t i = 0; i < rows; i += 16)
    for (int64_t d = 0; d < size; d += 16) {
      __m512i r[16];
      const f16x times = _mm512_loadu_ps(factor + i);
      for (int n = 0; n < 16; n++) r[n] = _mm512_castps_si512(_mm512_mul_ps(times, _mm512_loadu_ps(x + (d + n) * width + i)));
      transpose(r);
      for (int n = 0; n < least(16, rows - i); n++) write_bf16(out + (i + n) * stride + d, _mm512_castsi512_ps(r[n]));
    }
}

/* ---- softmax ---------------------------------------------------------------------------------------------------------------------- */

/* Hide what a query must not see: scores[key][query], the first of each given by its place in the segment. */
static void hide(float *scores, int64_t keys, int64_t columns, int64_t width, int64_t key, int64_t query, int64_t window) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int64_t j = 0; j < keys; j++)
    for (int64_t i = 0; i < columns; i += 16) {
      const __m512i distance = _mm512_add_epi32(lane, _mm512_set1_epi32((int)(query + i - key - j)));
      __mmask16 hidden = _mm512_cmplt_epi32_mask(distance, _mm512_setzero_si512());
      if (window) hidden |= _mm512_cmpge_epi32_mask(distance, _mm512_set1_epi32((int)window));
      if (hidden) _mm512_mask_storeu_ps(scores + j * width + i, hidden, _mm512_set1_ps(HIDDEN));
    }
}

/* ---- forward ---------------------------------------------------------------------------------------------------------------------- */

typedef struct {
  pair queries[LARGEST_HEAD / 2 * QUERIES], probabilities[KEYS / 2 * QUERIES];
  float scores[KEYS * QUERIES], sum[LARGEST_HEAD * QUERIES];
  float largest[QUERIES], total[QUERIES], factor[QUERIES];
} Forward;

/* Scores -> probabilities that are not yet divided, in pairs of keys; `largest`, `total` and `factor` (of what was summed before). */
static void soften(Forward *at, int64_t keys, int64_t columns, float by) {
  const f16x times = _mm512_set1_ps(by);
  for (int64_t i = 0; i < columns; i += 16) {
    const f16x before = _mm512_loadu_ps(at->largest + i);
    f16x now = before, other = before, sum = _mm512_setzero_ps();
    int64_t j = 0;
    for (; j + 2 <= keys; j += 2) {
      now = _mm512_max_ps(now, _mm512_loadu_ps(at->scores + j * QUERIES + i));
      other = _mm512_max_ps(other, _mm512_loadu_ps(at->scores + (j + 1) * QUERIES + i));
    }
    if (j < keys) now = _mm512_max_ps(now, _mm512_loadu_ps(at->scores + j * QUERIES + i));
    now = _mm512_max_ps(now, other);
    const f16x shift = _mm512_mul_ps(now, times);
    for (j = 0; j < keys; j += 2) {
      const f16x low = power_of_two(_mm512_fmsub_ps(_mm512_loadu_ps(at->scores + j * QUERIES + i), times, shift));
      const f16x high = j + 1 < keys ? power_of_two(_mm512_fmsub_ps(_mm512_loadu_ps(at->scores + (j + 1) * QUERIES + i), times, shift))
                                     : _mm512_setzero_ps();
      sum = _mm512_add_ps(sum, _mm512_add_ps(low, high));
      _mm512_storeu_si512(at->probabilities + j / 2 * QUERIES + i, paired(narrow(low), narrow(high)));
    }
    const f16x factor = power_of_two(_mm512_mul_ps(_mm512_sub_ps(before, now), times)); /* exactly 1 where these keys move nothing */
    _mm512_storeu_ps(at->factor + i, factor);
    _mm512_storeu_ps(at->largest + i, now);
    _mm512_storeu_ps(at->total + i, _mm512_fmadd_ps(_mm512_loadu_ps(at->total + i), factor, sum));
  }
}

static void forward_of(const Problem *p, const Task *t, const bf16 *values, int64_t width, bf16 *out, const int64_t *out_strides,
                       float *lse, Forward *at) {
  const int64_t begin = p->bounds[t->segment], kv_head = t->head / (p->heads / p->kv_heads), size = p->size;
  const int64_t asked = begin + t->first - (t->segment + 1) * p->skip, all = p->bounds[p->segments] - p->segments * p->skip;
  const int64_t columns = up(t->stop - t->first, 16);
  const float by = p->scale * LOG2_E;
  pairs_of_features(row(&p->q, asked, t->head), p->q.token, t->stop - t->first, size, at->queries, QUERIES);
  for (int64_t i = 0; i < QUERIES; i++) at->largest[i] = LOWEST, at->total[i] = 0;
  int started = 0;
  for (int64_t j = lowest_key(t->first / QUERIES * QUERIES, p->window); j < t->keys; j += KEYS) {
    const int64_t keys = least(KEYS, t->keys - j);
    product(keys, columns, size / 2, row(&p->k, begin + j, kv_head), p->k.token, at->queries, QUERIES, at->scores, QUERIES, 0);
    if (must_hide(p, t->first, t->stop, j, j + keys)) hide(at->scores, keys, columns, QUERIES, j, t->first, p->window);
    soften(at, keys, columns, by);
    if (started)
      for (int64_t d = 0; d < size; d++)
        for (int64_t i = 0; i < columns; i += 16)
          _mm512_storeu_ps(at->sum + d * QUERIES + i,
                           _mm512_mul_ps(_mm512_loadu_ps(at->sum + d * QUERIES + i), _mm512_loadu_ps(at->factor + i)));
    product(size, columns, (keys + 1) / 2, values + j, width, at->probabilities, QUERIES, at->sum, QUERIES, started);
    started = 1;
  }
  for (int64_t i = 0; i < columns; i++) at->factor[i] = 1.0f / at->total[i];
  turned_back(at->sum, QUERIES, t->stop - t->first, size, at->factor, out + asked * out_strides[0] + t->head * out_strides[1],
              out_strides[0]);
  for (int64_t i = 0; i < t->stop - t->first; i++)
    lse[t->head * all + asked + i] = at->largest[i] * by + log2f(at->total[i]);
}

/* ---- backward --------------------------------------------------------------------------------------------------------------------- */

typedef struct {
  pair queries[LARGEST_HEAD / 2 * QUERIES], grads[LARGEST_HEAD / 2 * QUERIES];             /* pairs of features */
  pair query_rows[QUERIES / 2 * LARGEST_HEAD], grad_rows[QUERIES / 2 * LARGEST_HEAD];      /* pairs of rows */
  float scores[KEYS * QUERIES], grad_scores[KEYS * QUERIES], sum[LARGEST_HEAD * QUERIES]; /* sum: of the queries' gradient, turned */
  bf16 probabilities[KEYS * QUERIES], slopes[KEYS * QUERIES];
  pair slope_pairs[KEYS / 2 * QUERIES];
  float lse[QUERIES], delta[QUERIES], scale[QUERIES];
} Backward;

/* delta: the sum over D of a query's result and that result's gradient, which is the sum of probability times its gradient. */
static void deltas(const bf16 *out, int64_t out_stride, const bf16 *grad, int64_t grad_stride, int64_t rows, int64_t size, float *delta) {
  for (int64_t i = 0; i < rows; i++) {
    f16x sum = _mm512_setzero_ps();
    for (int64_t d = 0; d < size; d += 16)
      sum = _mm512_fmadd_ps(read_bf16(out + i * out_stride + d), read_bf16(grad + i * grad_stride + d), sum);
    delta[i] = _mm512_reduce_add_ps(sum);
  }
}

/* probabilities from scores, and the scores' gradient from that of probabilities, both rounded for the products that follow. */
static void slope(Backward *at, int64_t keys, int64_t from, int64_t columns, float by) {
  const f16x times = _mm512_set1_ps(by);
  for (int64_t j = 0; j < up(keys, 2); j += 2)
    for (int64_t i = from; i < columns; i += 16) {
      const f16x lse = _mm512_loadu_ps(at->lse + i), delta = _mm512_loadu_ps(at->delta + i);
      __m256i both[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
      for (int n = 0; n < least(2, keys - j); n++) {
        const int64_t cell = (j + n) * QUERIES + i;
        const f16x probability = power_of_two(_mm512_fmsub_ps(_mm512_loadu_ps(at->scores + cell), times, lse));
        both[n] = narrow(_mm512_mul_ps(probability, _mm512_sub_ps(_mm512_loadu_ps(at->grad_scores + cell), delta)));
        _mm256_storeu_si256((__m256i *)(at->probabilities + cell), narrow(probability));
        _mm256_storeu_si256((__m256i *)(at->slopes + cell), both[n]);
      }
      _mm512_storeu_si512(at->slope_pairs + j / 2 * QUERIES + i, paired(both[0], both[1]));
    }
}

/* One block of queries of one head: adds to the sums of keys and values, and writes the queries' gradient. */
static void backward_block(const Problem *p, const Gradients *g, int64_t segment, int64_t head, int64_t first, int64_t stop,
                           const bf16 *keys_turned, int64_t width, float *sum_k, float *sum_v, Backward *at) {
  const int64_t begin = p->bounds[segment], kv_head = head / (p->heads / p->kv_heads), size = p->size, rows = stop - first;
  const int64_t columns = up(rows, 16);
  const float by = p->scale * LOG2_E;
  const bf16 *q = row(&p->q, begin + first, head), *grad = row(&g->grad, begin + first, head);
  pairs_of_features(q, p->q.token, rows, size, at->queries, QUERIES);
  pairs_of_features(grad, g->grad.token, rows, size, at->grads, QUERIES);
  pairs_of_rows(q, p->q.token, rows, size, at->query_rows, QUERIES);
  pairs_of_rows(grad, g->grad.token, rows, size, at->grad_rows, QUERIES);
  for (int64_t i = 0; i < QUERIES; i++)
    at->lse[i] = i < rows ? g->lse[head * p->bounds[p->segments] + begin + first + i] : 1e30f, at->delta[i] = 0, at->scale[i] = p->scale;
  deltas(row(&g->out, begin + first, head), g->out.token, grad, g->grad.token, rows, size, at->delta);
  const int64_t seen = keys_of(p, segment, stop);
  int started = 0;
  for (int64_t j = lowest_key(first, p->window); j < seen; j += KEYS) {
    const int64_t keys = least(KEYS, seen - j);
    const int64_t from = started && p->causal ? most(0, j - first) / 16 * 16 : 0; /* queries before these keys see none of them */
    product(keys, columns - from, size / 2, row(&p->k, begin + j, kv_head), p->k.token, at->queries + from, QUERIES, at->scores + from,
            QUERIES, 0);
    product(keys, columns - from, size / 2, row(&p->v, begin + j, kv_head), p->v.token, at->grads + from, QUERIES, at->grad_scores + from,
            QUERIES, 0);
    if (must_hide(p, first, stop, j, j + keys))
      hide(at->scores + from, keys, columns - from, QUERIES, j, first + from, p->window);
    slope(at, keys, from, columns, by);
    product(keys, size, (columns - from) / 2, at->probabilities + from, QUERIES, at->grad_rows + from / 2 * size, size, sum_v + j * size,
            size, 1);
    product(keys, size, (columns - from) / 2, at->slopes + from, QUERIES, at->query_rows + from / 2 * size, size, sum_k + j * size, size,
            1);
    product(size, columns - from, (keys + 1) / 2, keys_turned + j, width, at->slope_pairs + from, QUERIES, at->sum + from, QUERIES,
            started);
    started = 1;
  }
  turned_back(at->sum, QUERIES, rows, size, at->scale, g->grad_q + ((begin + first) * p->heads + head) * size, p->heads * size);
}

/* Adds up the tasks' sums, the earliest first, and rounds: a gradient of keys or values of one segment and head. */
static void add_up(const float *const *sums, const int64_t *seen, int64_t num, int64_t length, int64_t size, float scale, bf16 *out,
                   int64_t stride) {
  for (int64_t j = 0; j < length; j++)
    for (int64_t d = 0; d < size; d += 16) {
      f16x sum = _mm512_setzero_ps();
      for (int64_t n = 0; n < num; n++)
        if (j < seen[n]) sum = _mm512_add_ps(sum, _mm512_loadu_ps(sums[n] + j * size + d));
      write_bf16(out + j * stride + d, _mm512_mul_ps(sum, _mm512_set1_ps(scale)));
    }
}

#include "../segments_tasks.h"
