/* Attention of single tokens in fp32, each over the keys and values of its own row, for CPUs with AVX2 and FMA.

   A token's result is made by one thread from that token's numbers alone, in an order that follows from how many keys it sees: no answer
   depends on its neighbours, nor on what was read in one pass with it, nor on how much of it lies in the beginning that all rows share.
   Up to four query heads of one key/value head are computed together, so that its keys and values are read once for them.

   Keys and values lie in pages of 32 tokens, and pages in slabs. Of a page and a head, keys lie features down and tokens across, so that
   scores of 32 keys are made at once and nothing is added across a register; values lie tokens down.

   Legend: T tokens of the pass, R rows, H query heads, K key/value heads, G = H / K, D head size (a multiple of 8). */

#include "common.h"

enum { PAGE = 32, TOGETHER = 4, LARGEST_HEAD = 256 };

typedef struct {
  float *const *keys, *const *values; /* of each slab: (pages, K, D, PAGE) and (pages, K, PAGE, D) */
  int64_t kv_heads, size, page, slab; /* page: PAGE; slab: pages of one */
} Pages;

typedef struct {
  const Pages *kept, *shared; /* shared: what all rows begin with, in one slab */
  const float *q;             /* (T, H, D) */
  const int64_t *lengths;     /* (T,): keys in its row's pages that a token sees, its own included */
  const int32_t *rows;        /* (T,): the row of a token */
  const int32_t *pages;       /* (R, width): a row's pages, in the order of its tokens */
  float *out;                 /* (T, H, D) */
  int64_t width, heads, window, shared_tokens;
  float scale;
  int threads;
} Tokens;

typedef struct {
  const float *keys, *values; /* (D, PAGE) of the whole page, (num, D) of the keys that are seen */
  int64_t place, num;         /* the first that is seen */
} Span;

INLINE float *page_of(const Pages *kept, float *const *slabs, int64_t page, int64_t head) {
  return slabs[page / kept->slab] + (page % kept->slab * kept->kv_heads + head) * PAGE * kept->size;
}

/* found[h][0 .. 8 * across) = q[h] . keys, of keys (D, PAGE). q: (heads, D). */
INLINE void score(const int heads, const int across, int64_t size, const float *q, const float *keys, float *found, int64_t stride) {
  f8x sum[TOGETHER][4];
  for (int h = 0; h < heads; h++)
    for (int n = 0; n < across; n++) sum[h][n] = all(0);
  for (int64_t d = 0; d < size; d++, keys += PAGE) {
    f8x key[4];
    for (int n = 0; n < across; n++) key[n] = read(keys + 8 * n);
    for (int h = 0; h < heads; h++) {
      const f8x query = all(q[h * size + d]);
      for (int n = 0; n < across; n++) sum[h][n] = plus(query, key[n], sum[h][n]);
    }
  }
  for (int h = 0; h < heads; h++)
    for (int n = 0; n < across; n++) _mm256_storeu_ps(found + h * stride + 8 * n, sum[h][n]);
}

/* The same of all 32 keys of a page, or where fewer are seen of its first half. 16 registers hold 4 x 2 or 3 x 4 sums. */
#define SCORES(H, ACROSS) \
  case H: \
    for (int64_t n = 0; n < until; n += 8 * ACROSS) score(H, ACROSS, size, q, keys + n, found + n, stride); \
    break;

static void score_page(int64_t heads, int64_t until, int64_t size, const float *q, const float *keys, float *found, int64_t stride) {
  if (until <= 16)
    switch (heads) { SCORES(1, 2) SCORES(2, 2) SCORES(3, 2) SCORES(4, 2) }
  else
    switch (heads) { SCORES(1, 4) SCORES(2, 4) SCORES(3, 4) SCORES(4, 2) }
}

/* scores[j], j < num, -inf up to a multiple of 8 -> exponentials of their distance to the largest. Returns one over their sum. */
static float soften(float *scores, int64_t num) {
  f8x top = all(-INFINITY), total = all(0);
  for (int64_t j = 0; j < num; j += 8) top = _mm256_max_ps(top, read(scores + j));
  const f8x largest = all(largest_of(top));
  for (int64_t j = 0; j < num; j += 8) {
    const f8x share = power_of_two(read(scores + j) - largest);
    _mm256_storeu_ps(scores + j, share);
    total += share;
  }
  return 1.0f / sum_of(total);
}

/* out[h][d .. d + 8 * across) = by[h] times the sum over keys of shares[h][j] * values[j]. */
INLINE void weigh(const int heads, const int across, const Span *spans, int64_t num_spans, int64_t size, int64_t d, const float *shares,
                  int64_t stride, const float *by, float *out) {
  f8x sum[TOGETHER][4];
  for (int h = 0; h < heads; h++)
    for (int n = 0; n < across; n++) sum[h][n] = all(0);
  for (const Span *span = spans; span < spans + num_spans; shares += span++->num)
    for (int64_t j = 0; j < span->num; j++) {
      f8x value[4];
      for (int n = 0; n < across; n++) value[n] = read(span->values + j * size + d + 8 * n);
      for (int h = 0; h < heads; h++) {
        const f8x share = all(shares[h * stride + j]);
        for (int n = 0; n < across; n++) sum[h][n] = plus(share, value[n], sum[h][n]);
      }
    }
  for (int h = 0; h < heads; h++)
    for (int n = 0; n < across; n++) _mm256_storeu_ps(out + h * size + d + 8 * n, sum[h][n] * all(by[h]));
}

#define WEIGH(H, ACROSS) \
  case H: \
    for (; d + 8 * ACROSS <= size; d += 8 * ACROSS) weigh(H, ACROSS, spans, num_spans, size, d, shares, stride, by, out); \
    for (; d < size; d += 8) weigh(H, 1, spans, num_spans, size, d, shares, stride, by, out); \
    break;

static void weigh_all(int64_t heads, const Span *spans, int64_t num_spans, int64_t size, const float *shares, int64_t stride,
                      const float *by, float *out) {
  int64_t d = 0;
  switch (heads) { WEIGH(1, 4) WEIGH(2, 4) WEIGH(3, 4) WEIGH(4, 2) }
}

/* The `heads` queries of one key/value head, at most `TOGETHER`. shares: room for `heads` times `stride`. */
static void attend(const Tokens *s, int64_t heads, const float *q, const Span *spans, int64_t num_spans, float *shares, int64_t stride,
                   float *out) {
  const int64_t size = s->kept->size;
  float scaled[TOGETHER * LARGEST_HEAD], found[TOGETHER * PAGE], by[TOGETHER];
  for (int64_t n = 0; n < heads * size; n++) scaled[n] = q[n] * (s->scale * LOG2_E);
  int64_t num = 0;
  for (const Span *span = spans; span < spans + num_spans; num += span++->num) {
    if (span->place == 0) { /* what is too many is written over by the next */
      score_page(heads, span->num, size, scaled, span->keys, shares + num, stride);
      continue;
    }
    score_page(heads, span->place + span->num, size, scaled, span->keys, found, PAGE);
    for (int64_t h = 0; h < heads; h++)
      memcpy(shares + h * stride + num, found + h * PAGE + span->place, (size_t)span->num * sizeof(float));
  }
  for (int64_t h = 0; h < heads; h++) {
    _mm256_storeu_ps(shares + h * stride + num, all(-INFINITY));
    by[h] = soften(shares + h * stride, num);
  }
  weigh_all(heads, spans, num_spans, size, shares, stride, by, out);
}

/* Adds the spans of keys first .. stop of some pages. Returns how many there are. */
INLINE int64_t add_spans(const Pages *kept, const int32_t *pages, int64_t head, int64_t first, int64_t stop, Span *spans, int64_t num) {
  for (int64_t at = first; at < stop; num++) {
    const int64_t page = pages ? pages[at / PAGE] : at / PAGE, place = at % PAGE, count = least(PAGE - place, stop - at);
    spans[num] = (Span){page_of(kept, kept->keys, page, head), page_of(kept, kept->values, page, head) + place * kept->size, place, count};
    at += count;
  }
  return num;
}

INLINE void keep(const Pages *kept, int64_t page, int64_t place, const float *k, const float *v) {
  const int64_t size = kept->size;
  for (int64_t h = 0; h < kept->kv_heads; h++) {
    float *keys = page_of(kept, kept->keys, page, h) + place;
    for (int64_t d = 0; d < size; d++) keys[d * PAGE] = k[h * size + d];
    memcpy(page_of(kept, kept->values, page, h) + place * size, v + h * size, (size_t)size * sizeof(float));
  }
}

/* Writes the keys and values of some tokens, (T, K, D) each, into pages: token t to the place `places[t]`, counted over all pages. */
void campana_tokens_keep(const Pages *kept, const float *k, const float *v, const int64_t *places, int64_t tokens, int threads) {
  const int64_t each = kept->kv_heads * kept->size;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t t = 0; t < tokens; t++) keep(kept, places[t] / PAGE, places[t] % PAGE, k + t * each, v + t * each);
}

/* Each token's result. longest: the most of `lengths`. Returns 0, or 1 where there is no memory. */
int campana_tokens_attend(const Tokens *s, int64_t tokens, int64_t longest) {
  const Pages *kept = s->kept;
  const int64_t size = kept->size, kv_heads = kept->kv_heads, group = s->heads / kv_heads;
  const int64_t stride = up(s->shared_tokens + longest, 8) + PAGE;
  int failed = 0;
#pragma omp parallel num_threads(s->threads)
  {
    float *shares = malloc((size_t)(TOGETHER * stride) * sizeof(float));
    Span *spans = malloc((size_t)(s->shared_tokens / PAGE + s->width + 2) * sizeof(Span));
    if (!shares || !spans)
#pragma omp atomic write
      failed = 1;
#pragma omp for schedule(dynamic, 1)
    for (int64_t t = 0; t < tokens; t++) {
      if (!shares || !spans) continue;
      const int32_t *pages = s->pages + s->rows[t] * s->width;
      const int64_t length = s->lengths[t];
      const int64_t first = s->window ? most(0, s->shared_tokens + length - s->window) : 0, skipped = least(first, s->shared_tokens);
      for (int64_t h = 0; h < kv_heads; h++) {
        int64_t num = add_spans(s->shared, NULL, h, skipped, s->shared_tokens, spans, 0);
        num = add_spans(kept, pages, h, first - skipped, length, spans, num);
        for (int64_t g = 0; g < group; g += TOGETHER) {
          const int64_t at = (t * s->heads + h * group + g) * size;
          attend(s, least(TOGETHER, group - g), s->q + at, spans, num, shares, stride, s->out + at);
        }
      }
    }
    free(shares), free(spans);
  }
  return failed;
}
