/* Attention of one new token of each answer under way, over that answer's own keys and values in bf16.

   A row's result is made by one thread from that row's numbers alone, in an order that follows from its length alone: no answer depends
   on its neighbours. Scores, softmax and sums are fp32, and probabilities are not rounded. The query heads of one key/value
   head are computed one after another, so that its keys and values come from memory once.

   Legend: R rows, H query heads, K key/value heads, G = H / K, D head size (a multiple of 32), L places of a bucket. */

#include "common.h"

enum { LARGEST_HEAD = 256 };

typedef struct {
  bf16 *keys, *values; /* (slots, K, L, D) */
  int64_t places, rows;
} Bucket;

typedef struct {
  const bf16 *q, *k, *v;  /* (R, H, D), (R, K, D): contiguous, in the order of the buckets' rows */
  const int64_t *lengths; /* (R,): keys that a row had before this token, which is written at that place */
  bf16 *out;              /* (R, H, D) */
  int64_t heads, kv_heads, size, window;
  float scale;
  int threads;
} Step;

/* Sums of 16 registers, as one. */
INLINE f16x sums(f16x r[16]) {
  for (int n = 0; n < 8; n++) r[n] = _mm512_add_ps(_mm512_unpacklo_ps(r[2 * n], r[2 * n + 1]), _mm512_unpackhi_ps(r[2 * n], r[2 * n + 1]));
  for (int n = 0; n < 4; n++) {
    const __m512d a = _mm512_castps_pd(r[2 * n]), b = _mm512_castps_pd(r[2 * n + 1]);
    r[n] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
  }
  for (int n = 0; n < 2; n++)
    r[n] = _mm512_add_ps(_mm512_shuffle_f32x4(r[2 * n], r[2 * n + 1], 0x88), _mm512_shuffle_f32x4(r[2 * n], r[2 * n + 1], 0xdd));
  return _mm512_add_ps(_mm512_shuffle_f32x4(r[0], r[1], 0x88), _mm512_shuffle_f32x4(r[0], r[1], 0xdd));
}

/* scores[j], j < keys, times `by`; up to a multiple of 16: -inf. Returns the largest. */
static float score(const bf16 *q, const bf16 *keys, int64_t num, int64_t size, float by, float *scores) {
  __m512bh query[LARGEST_HEAD / 32];
  for (int64_t d = 0; d < size / 32; d++) query[d] = (__m512bh)_mm512_loadu_si512(q + 32 * d);
  f16x top = _mm512_set1_ps(-INFINITY);
  for (int64_t j = 0; j < num; j += 16) {
    f16x sum[16];
    for (int n = 0; n < 16; n++) {
      const bf16 *key = keys + least(j + n, num - 1) * size;
      sum[n] = _mm512_setzero_ps();
      for (int64_t d = 0; d < size / 32; d++) sum[n] = _mm512_dpbf16_ps(sum[n], query[d], (__m512bh)_mm512_loadu_si512(key + 32 * d));
    }
    const __mmask16 real = (__mmask16)((1u << least(16, num - j)) - 1);
    const f16x found = _mm512_mask_mul_ps(_mm512_set1_ps(-INFINITY), real, sums(sum), _mm512_set1_ps(by));
    _mm512_storeu_ps(scores + j, found);
    top = _mm512_max_ps(top, found);
  }
  return _mm512_reduce_max_ps(top);
}

static void attend(const Step *s, const bf16 *q, const bf16 *keys, const bf16 *values, int64_t num, float *scores, bf16 *out) {
  const float largest = score(q, keys, num, s->size, s->scale * LOG2_E, scores);
  f16x total = _mm512_setzero_ps();
  for (int64_t j = 0; j < num; j += 16) {
    const f16x share = power_of_two(_mm512_sub_ps(_mm512_loadu_ps(scores + j), _mm512_set1_ps(largest)));
    _mm512_storeu_ps(scores + j, share);
    total = _mm512_add_ps(total, share);
  }
  const f16x by = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(total));
  for (int64_t d = 0; d < s->size; d += 64) {
    f16x sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    const int parts = (int)least(4, (s->size - d) / 16);
    for (int64_t j = 0; j < num; j++)
      for (int n = 0; n < parts; n++)
        sum[n] = _mm512_fmadd_ps(_mm512_set1_ps(scores[j]), read_bf16(values + j * s->size + d + 16 * n), sum[n]);
    for (int n = 0; n < parts; n++) write_bf16(out + d + 16 * n, _mm512_mul_ps(sum[n], by));
  }
}

/* Writes each row's new key and value into its bucket, and its result. Returns 0, or 1 where there is no memory. */
int campana_step(const Step *s, const Bucket *buckets, int64_t rows, int64_t longest) {
  const int64_t size = s->size, kv_heads = s->kv_heads, group = s->heads / kv_heads;
  int failed = 0;
#pragma omp parallel num_threads(s->threads)
  {
    float *scores = aligned_alloc(64, (size_t)up(longest + 1, 16) * sizeof(float));
    if (!scores)
#pragma omp atomic write
      failed = 1;
#pragma omp for schedule(dynamic, 4)
    for (int64_t r = 0; r < rows; r++) {
      int64_t slot = r, b = 0;
      while (slot >= buckets[b].rows) slot -= buckets[b++].rows;
      const int64_t places = buckets[b].places, length = s->lengths[r];
      const int64_t first = s->window ? most(0, length + 1 - s->window) : 0;
      for (int64_t h = 0; scores && h < kv_heads; h++) {
        const int64_t start = (slot * kv_heads + h) * places * size;
        bf16 *keys = buckets[b].keys + start, *values = buckets[b].values + start;
        memcpy(keys + length * size, s->k + (r * kv_heads + h) * size, (size_t)size * sizeof(bf16));
        memcpy(values + length * size, s->v + (r * kv_heads + h) * size, (size_t)size * sizeof(bf16));
        for (int64_t g = 0; g < group; g++) {
          const int64_t at = (r * s->heads + h * group + g) * size;
          attend(s, s->q + at, keys + first * size, values + first * size, length + 1 - first, scores, s->out + at);
        }
      }
    }
    free(scores);
  }
  return failed;
}
