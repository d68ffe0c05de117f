/* Attention of one new token of each answer under way, over that answer's own keys and values in bf16.

   A row's result is made by one thread from that row's numbers alone, in an order that follows from its length alone: no answer depends
   on its neighbours, nor on how much of it lies in the beginning that all rows share. Scores, softmax and sums are fp32, and
   probabilities are not rounded. Up to four query heads of one key/value head are computed together, so that its keys and values come
   from memory once and are widened once.

   Keys and values lie in pages of so many tokens, (K, page, D) each, and pages in slabs; a row has as many pages as it needs, anywhere.

   Legend: R rows, H query heads, K key/value heads, G = H / K, D head size (a multiple of 32), T tokens. */

#include "common.h"

enum { TOGETHER = 4, LARGEST_HEAD = 256 };

typedef struct {
  bf16 *const *keys, *const *values; /* of each slab: (pages, K, page, D) */
  int64_t kv_heads, size, page, slab; /* slab: pages of one */
} Pages;

typedef struct {
  const Pages *kept;
  const bf16 *q, *k, *v;  /* (R, H, D), (R, K, D): contiguous */
  const int64_t *lengths; /* (R,): keys in its pages that a row had before this token, which is written at that place */
  const int32_t *pages;   /* (R, width): a row's pages, in the order of its tokens */
  const bf16 *shared_keys, *shared_values; /* (K, shared, D): what all rows begin with */
  bf16 *out;                               /* (R, H, D) */
  int64_t width, heads, window, shared;
  float scale;
  int threads;
} Step;

typedef struct {
  const bf16 *keys, *values; /* (num, D) */
  int64_t num;
} Span;

INLINE bf16 *page_of(const Pages *kept, bf16 *const *slabs, int64_t page, int64_t head) {
  return slabs[page / kept->slab] + (page % kept->slab * kept->kv_heads + head) * kept->page * kept->size;
}

/* What comes from memory while something else is computed, a few lines at a time: a head of a row's pages. */
typedef struct {
  const Pages *kept;
  bf16 *const *slabs;
  const int32_t *page, *last;
  int64_t head;
  const bf16 *at, *stop;
} Ahead;

INLINE void ask(Ahead *ahead, int lines) {
  for (int n = 0; n < lines; n++, ahead->at += 32) {
    if (ahead->at == ahead->stop) {
      if (ahead->page == ahead->last) return;
      ahead->at = page_of(ahead->kept, ahead->slabs, *ahead->page++, ahead->head);
      ahead->stop = ahead->at + ahead->kept->page * ahead->kept->size;
    }
    _mm_prefetch((const char *)ahead->at, _MM_HINT_T0);
  }
}

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

/* The scores of 16 keys. */
INLINE f16x score_16(const int parts, const __m512bh *query, const bf16 *key) {
  f16x sum[16];
  for (int n = 0; n < 16; n++, key += 32 * parts) {
    sum[n] = _mm512_setzero_ps();
    for (int d = 0; d < parts; d++) sum[n] = _mm512_dpbf16_ps(sum[n], query[d], (__m512bh)_mm512_loadu_si512(key + 32 * d));
  }
  return sums(sum);
}

/* scores[j] = by * q . keys[j]; -inf from there up to a multiple of 16. Returns the largest of each sixteenth and `top`. */
INLINE f16x score(const int parts, const bf16 *q, const Span *span, float by, float *scores, f16x top, Ahead *ahead) {
  const int64_t size = 32 * parts, whole = span->num / 16 * 16;
  const f16x times = _mm512_set1_ps(by);
  __m512bh query[LARGEST_HEAD / 32];
  for (int d = 0; d < parts; d++) query[d] = (__m512bh)_mm512_loadu_si512(q + 32 * d);
  for (int64_t j = 0; j < whole; j += 16) {
    ask(ahead, 8 * parts);
    const f16x found = _mm512_mul_ps(score_16(parts, query, span->keys + j * size), times);
    _mm512_storeu_ps(scores + j, found);
    top = _mm512_max_ps(top, found);
  }
  if (whole < span->num) { /* keys that are there, the last of them in place of those that are not */
    bf16 keys[16 * LARGEST_HEAD];
    for (int64_t n = 0; n < 16; n++)
      memcpy(keys + n * size, span->keys + least(whole + n, span->num - 1) * size, (size_t)size * sizeof(bf16));
    const __mmask16 real = (__mmask16)((1u << (span->num - whole)) - 1);
    const f16x found = _mm512_mask_mul_ps(_mm512_set1_ps(-INFINITY), real, score_16(parts, query, keys), times);
    _mm512_storeu_ps(scores + whole, found);
    top = _mm512_max_ps(top, found);
  }
  return top;
}

#define PARTS(N) \
  case N: return score(N, q, span, by, scores, top, ahead);

static f16x score_of(int64_t size, const bf16 *q, const Span *span, float by, float *scores, f16x top, Ahead *ahead) {
  switch (size / 32) {
    PARTS(1) PARTS(2) PARTS(3) PARTS(4) PARTS(5) PARTS(6) PARTS(7)
    default: return score(8, q, span, by, scores, top, ahead);
  }
}

/* scores[j], j < num, -inf up to a multiple of 16 -> exponentials of their distance to the largest. Returns their sum. */
static float soften(float *scores, int64_t num, float largest) {
  f16x total = _mm512_setzero_ps();
  for (int64_t j = 0; j < num; j += 16) {
    const f16x share = power_of_two(_mm512_sub_ps(_mm512_loadu_ps(scores + j), _mm512_set1_ps(largest)));
    _mm512_storeu_ps(scores + j, share);
    total = _mm512_add_ps(total, share);
  }
  return _mm512_reduce_add_ps(total);
}

/* out[h][0 .. 32 * words) = by[h] times the sum over keys of shares[h][j] * values[j], for some heads. */
INLINE void weigh(const int heads, const int words, const Span *spans, int64_t num_spans, int64_t size, int64_t d, const float *shares,
                  int64_t stride, const float *by, bf16 *out, Ahead *ahead) {
  const __m512i high = _mm512_set1_epi32((int)0xffff0000);
  f16x even[TOGETHER][2], odd[TOGETHER][2]; /* features by their place in a pair */
  for (int h = 0; h < heads; h++)
    for (int w = 0; w < words; w++) even[h][w] = odd[h][w] = _mm512_setzero_ps();
  for (int64_t s = 0; s < num_spans; shares += spans[s++].num)
    for (int64_t j = 0; j < spans[s].num; j++) {
      f16x low_values[2], high_values[2];
      ask(ahead, words);
      for (int w = 0; w < words; w++) {
        const __m512i both = _mm512_loadu_si512(spans[s].values + j * size + d + 32 * w);
        low_values[w] = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
        high_values[w] = _mm512_castsi512_ps(_mm512_and_si512(both, high));
      }
      for (int h = 0; h < heads; h++) {
        const f16x share = _mm512_set1_ps(shares[h * stride + j]);
        for (int w = 0; w < words; w++) {
          even[h][w] = _mm512_fmadd_ps(share, low_values[w], even[h][w]);
          odd[h][w] = _mm512_fmadd_ps(share, high_values[w], odd[h][w]);
        }
      }
    }
  for (int h = 0; h < heads; h++)
    for (int w = 0; w < words; w++) {
      const f16x times = _mm512_set1_ps(by[h]);
      const __m512i low = _mm512_cvtepu16_epi32(narrow(_mm512_mul_ps(even[h][w], times)));
      const __m512i top = _mm512_cvtepu16_epi32(narrow(_mm512_mul_ps(odd[h][w], times)));
      _mm512_storeu_si512(out + h * size + d + 32 * w, _mm512_or_si512(low, _mm512_slli_epi32(top, 16)));
    }
}

#define HEADS(N) \
  case N: \
    for (; d + 64 <= size; d += 64) weigh(N, 2, spans, num_spans, size, d, shares, stride, by, out, ahead); \
    if (d < size) weigh(N, 1, spans, num_spans, size, d, shares, stride, by, out, ahead); \
    break;

static void weigh_all(int64_t heads, const Span *spans, int64_t num_spans, int64_t size, const float *shares, int64_t stride, const float *by,
                      bf16 *out, Ahead *ahead) {
  int64_t d = 0;
  switch (heads) {
    HEADS(1) HEADS(2) HEADS(3) HEADS(4)
  }
}

/* The `heads` queries of one key/value head, at most `TOGETHER`. shares: room for `heads` times `stride`. */
static void attend(const Step *s, int64_t heads, const bf16 *q, const Span *spans, int64_t num_spans, float *shares, int64_t stride, bf16 *out,
                   Ahead next[2]) {
  const int64_t size = s->kept->size;
  float by[TOGETHER];
  for (int64_t h = 0; h < heads; h++) {
    float *scores = shares + h * stride;
    f16x top = _mm512_set1_ps(-INFINITY);
    int64_t num = 0;
    for (int64_t n = 0; n < num_spans; num += spans[n++].num)
      top = score_of(size, q + h * size, spans + n, s->scale * LOG2_E, scores + num, top, next);
    _mm512_storeu_ps(scores + num, _mm512_set1_ps(-INFINITY));
    by[h] = 1.0f / soften(scores, num, _mm512_reduce_max_ps(top));
  }
  weigh_all(heads, spans, num_spans, size, shares, stride, by, out, next + 1);
}

/* The first key that a row's new token sees, those that all rows begin with counted. */
INLINE int64_t first_seen(const Step *s, int64_t r) { return s->window ? most(0, s->shared + s->lengths[r] + 1 - s->window) : 0; }

/* The keys that a row's new token sees, its own included: those that all rows begin with, then page by page. Returns how many spans. */
static int64_t spans_of(const Step *s, int64_t r, int64_t head, Span *spans) {
  const Pages *kept = s->kept;
  const int64_t size = kept->size, stop = s->lengths[r] + 1, first = first_seen(s, r), skipped = least(first, s->shared);
  const int64_t begin = (head * s->shared + skipped) * size;
  int64_t num = 0;
  if (skipped < s->shared) spans[num++] = (Span){s->shared_keys + begin, s->shared_values + begin, s->shared - skipped};
  for (int64_t at = first - skipped; at < stop;) {
    const int64_t page = s->pages[r * s->width + at / kept->page], place = at % kept->page, count = least(kept->page - place, stop - at);
    spans[num++] = (Span){page_of(kept, kept->keys, page, head) + place * size, page_of(kept, kept->values, page, head) + place * size, count};
    at += count;
  }
  return num;
}

INLINE Ahead ahead_of(const Step *s, bf16 *const *slabs, int64_t rows, int64_t r, int64_t head) {
  if (r == rows) return (Ahead){s->kept, slabs, NULL, NULL, head, NULL, NULL};
  const int32_t *pages = s->pages + r * s->width;
  const int64_t first = most(0, first_seen(s, r) - s->shared) / s->kept->page, stop = s->lengths[r] / s->kept->page + 1;
  return (Ahead){s->kept, slabs, pages + first, pages + stop, head, NULL, NULL};
}

INLINE void keep(const Pages *kept, int64_t page, int64_t place, const bf16 *k, const bf16 *v) {
  for (int64_t h = 0; h < kept->kv_heads; h++) {
    memcpy(page_of(kept, kept->keys, page, h) + place * kept->size, k + h * kept->size, (size_t)kept->size * sizeof(bf16));
    memcpy(page_of(kept, kept->values, page, h) + place * kept->size, v + h * kept->size, (size_t)kept->size * sizeof(bf16));
  }
}

/* Writes the keys and values of some tokens, (T, K, D) each, into pages: token t to the place `places[t]`, counted over all pages. */
void campana_keep(const Pages *kept, const bf16 *k, const bf16 *v, const int64_t *places, int64_t tokens, int threads) {
  const int64_t each = kept->kv_heads * kept->size;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t t = 0; t < tokens; t++) keep(kept, places[t] / kept->page, places[t] % kept->page, k + t * each, v + t * each);
}

/* Writes each row's new key and value into its page, and its result. Returns 0, or 1 where there is no memory. */
int campana_step(const Step *s, int64_t rows, int64_t longest) {
  const Pages *kept = s->kept;
  const int64_t size = kept->size, kv_heads = kept->kv_heads, group = s->heads / kv_heads, stride = up(s->shared + longest + 1, 16) + 16;
  int failed = 0;
#pragma omp parallel num_threads(s->threads)
  {
    float *shares = aligned_alloc(64, (size_t)(TOGETHER * stride) * sizeof(float));
    Span *spans = malloc((size_t)(s->width + 1) * sizeof(Span));
    if (!shares || !spans)
#pragma omp atomic write
      failed = 1;
#pragma omp for schedule(dynamic, 4)
    for (int64_t r = 0; r < rows; r++) {
      if (!shares || !spans) continue;
      const int64_t length = s->lengths[r], each = kv_heads * size;
      keep(kept, s->pages[r * s->width + length / kept->page], length % kept->page, s->k + r * each, s->v + r * each);
      for (int64_t h = 0; h < kv_heads; h++) {
        const int64_t num = spans_of(s, r, h, spans), then = r + (h + 1) / kv_heads, then_head = (h + 1) % kv_heads;
        Ahead next[2] = {ahead_of(s, kept->keys, rows, then, then_head), ahead_of(s, kept->values, rows, then, then_head)};
        for (int64_t g = 0; g < group; g += TOGETHER) {
          const int64_t at = (r * s->heads + h * group + g) * size;
          attend(s, least(TOGETHER, group - g), s->q + at, spans, num, shares, stride, s->out + at, next);
        }
      }
    }
    free(shares), free(spans);
  }
  return failed;
}
