/* What stands between the matrix products of a layer, each in one pass over memory: rotary positions, gated activations, norms, and the
   softmax of the output layer; fp32, for CPUs with AVX2 and FMA.

   Results do not depend on the number of threads: a sum over tokens is one of blocks of `BLOCK` tokens, added up in their order. A row's
   bits are made from that row's numbers alone.

   Legend: T tokens, H heads, D features of a row (a multiple of 8; of a head: of 16), n numbers (a multiple of 8), V words. */

#include "common.h"

enum { BLOCK = 64, SUMMED = 1024 }; /* SUMMED: shares of words that are added up in fp32 */

/* ---- rotary positions: x cos + (-second half, first half) sin --------------------------------------------------------------------- */

/* x (T, H, D) by strides -> out (T, H, D), contiguous. cos, sin: (T, D). `back`: the gradient of x, from that of the result. */
void campana_rotary(const float *x, int64_t token, int64_t head, const float *cos, const float *sin, float *out, int64_t tokens,
                    int64_t heads, int64_t size, int back, int threads) {
  const int64_t half = size / 2;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t t = 0; t < tokens; t++)
    for (int64_t d = 0; d < half; d += 8) {
      const f8x cos1 = read(cos + t * size + d), cos2 = read(cos + t * size + half + d);
      f8x sin1 = read(sin + t * size + d), sin2 = read(sin + t * size + half + d);
      if (back) {
        const f8x swapped = sin1;
        sin1 = -sin2, sin2 = -swapped;
      }
      for (int64_t h = 0; h < heads; h++) {
        const float *from = x + t * token + h * head + d;
        float *to = out + (t * heads + h) * size + d;
        const f8x first = read(from), second = read(from + half);
        write(to, first * cos1 - second * sin1);
        write(to + half, second * cos2 + first * sin2);
      }
    }
}

/* ---- gated activations: act(gate) * up, where act(x) = x / (1 + exp(-z(x))) ------------------------------------------------------- */

enum { SILU = 0, GELU_TANH = 1 }; /* z(x) = x; z(x) = 2 sqrt(2 / pi) (x + 0.044715 x^3), as tanh(y) = 2 / (1 + exp(-2 y)) - 1 */
#define GELU_SLOPE 1.5957691216f
#define GELU_CUBE 0.044715f

INLINE f8x inner(f8x x, int kind) {
  if (kind == SILU) return x;
  return x * all(GELU_SLOPE) * (x * x * all(GELU_CUBE) + all(1.0f));
}

INLINE f8x inner_slope(f8x x, int kind) {
  if (kind == SILU) return all(1.0f);
  return x * x * all(3.0f * GELU_CUBE * GELU_SLOPE) + all(GELU_SLOPE);
}

INLINE f8x sigmoid(f8x z) { /* 2^126 at most: the sum stays finite */
  return all(1.0f) / (all(1.0f) + power_of_two(_mm256_min_ps(all(126.0f), z * all(-LOG2_E))));
}

void campana_gated(const float *gate, const float *up, float *out, int64_t n, int kind, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < n; i += 8) {
    const f8x x = read(gate + i);
    write(out + i, x * sigmoid(inner(x, kind)) * read(up + i));
  }
}

void campana_gated_backward(const float *grad, const float *gate, const float *up, float *grad_gate, float *grad_up, int64_t n, int kind,
                            int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < n; i += 8) {
    const f8x x = read(gate + i), g = read(grad + i), share = sigmoid(inner(x, kind)), activated = x * share;
    const f8x slope = activated * (all(1.0f) - share) * inner_slope(x, kind) + share;
    write(grad_gate + i, g * read(up + i) * slope);
    write(grad_up + i, g * activated);
  }
}

/* ---- norms: x / sqrt(mean(x^2) + eps) * weight ------------------------------------------------------------------------------------ */

/* x (T, D) -> out (T, D), and inverse (T), what a row was multiplied by. `wide`: as in bf16, and always so. */
void campana_norm(const float *x, int wide, const float *weight, float eps, float *out, float *inverse, int64_t tokens, int64_t size,
                  int threads) {
  (void)wide;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t t = 0; t < tokens; t++) {
    const float *row = x + t * size;
    f8x sum = all(0);
    for (int64_t d = 0; d < size; d += 8) sum = plus(read(row + d), read(row + d), sum);
    inverse[t] = 1.0f / sqrtf(sum_of(sum) / (float)size + eps);
    const f8x times = all(inverse[t]);
    for (int64_t d = 0; d < size; d += 8) write(out + t * size + d, read(row + d) * times * read(weight + d));
  }
}

/* `parts`, where it is not NULL: (blocks, D), the weight's gradient of each block of tokens. */
void campana_norm_backward(const float *grad, const float *x, int wide, const float *inverse, const float *weight, float *grad_x,
                           float *parts, int64_t tokens, int64_t size, int threads) {
  (void)wide;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t b = 0; b < (tokens + BLOCK - 1) / BLOCK; b++) {
    float *part = parts ? parts + b * size : NULL;
    if (part) memset(part, 0, (size_t)size * sizeof(float));
    for (int64_t t = b * BLOCK; t < least((b + 1) * BLOCK, tokens); t++) {
      const float *row = x + t * size, *slope = grad + t * size;
      const f8x times = all(inverse[t]);
      f8x sum = all(0);
      for (int64_t d = 0; d < size; d += 8) {
        const f8x product = read(slope + d) * (read(row + d) * times);
        sum = plus(product, read(weight + d), sum);
        if (part) write(part + d, read(part + d) + product);
      }
      const f8x mean = all(sum_of(sum) / (float)size);
      for (int64_t d = 0; d < size; d += 8)
        write(grad_x + t * size + d, (read(slope + d) * read(weight + d) - read(row + d) * times * mean) * times);
    }
  }
}

/* ---- the output layer's softmax --------------------------------------------------------------------------------------------------- */

/* logits (rows, V) -> in their place the gradient of a row's cross-entropy by `scale` times its logits; losses (rows). */
void campana_cross_entropy(float *logits, const int64_t *targets, float scale, double *losses, int64_t rows, int64_t words, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int64_t r = 0; r < rows; r++) {
    float *row = logits + r * words;
    const int64_t whole = words / 8 * 8;
    const f8x times = all(scale * LOG2_E);
    const float wanted = scale * row[targets[r]];
    float last[8]; /* what is left, filled up with what adds nothing */
    for (int64_t v = 0; v < 8; v++) last[v] = whole + v < words ? row[whole + v] : -INFINITY;
    f8x top = read(last) * times;
    for (int64_t v = 0; v < whole; v += 8) top = _mm256_max_ps(top, read(row + v) * times);
    const float largest = largest_of(top);
    const f8x shift = all(largest);
    const f8x rest = power_of_two(_mm256_fmsub_ps(read(last), times, shift));
    write(last, rest);
    double total = (double)sum_of(rest);
    for (int64_t first = 0; first < whole; first += SUMMED) {
      f8x sum = all(0);
      for (int64_t v = first; v < least(first + SUMMED, whole); v += 8) {
        const f8x share = power_of_two(_mm256_fmsub_ps(read(row + v), times, shift));
        sum += share;
        write(row + v, share);
      }
      total += (double)sum_of(sum);
    }
    const float by = (float)(1.0 / total);
    losses[r] = (double)largest / LOG2_E + log(total) - (double)wanted;
    for (int64_t v = 0; v < whole; v += 8) write(row + v, read(row + v) * all(by));
    for (int64_t v = whole; v < words; v++) row[v] = last[v - whole] * by;
    row[targets[r]] -= 1.0f;
  }
}
