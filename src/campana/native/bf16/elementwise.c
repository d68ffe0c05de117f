/* What stands between the matrix products of a layer, each in one pass over memory: rotary positions, gated activations, norms, and the
   softmax of the output layer. Arithmetic is fp32 whatever is read, and what is written is rounded once.

   Results do not depend on the number of threads: a sum over tokens is one of blocks of `BLOCK` tokens, added up in their order.

   Legend: T tokens, H heads, D features of a row (a multiple of 16; of a head: of 32), n numbers (a multiple of 16), V words. */

#include "common.h"

enum { BLOCK = 64 };

/* ---- rotary positions: x cos + (-second half, first half) sin --------------------------------------------------------------------- */

/* x (T, H, D) by strides -> out (T, H, D), contiguous. cos, sin: (T, D) fp32. `back`: the gradient of x, from that of the result. */
void campana_rotary(const bf16 *x, int64_t token, int64_t head, const float *cos, const float *sin, bf16 *out, int64_t tokens,
                    int64_t heads, int64_t size, int back, int threads) {
  const int64_t half = size / 2;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t t = 0; t < tokens; t++)
    for (int64_t d = 0; d < half; d += 16) {
      const f16x cos1 = _mm512_loadu_ps(cos + t * size + d), cos2 = _mm512_loadu_ps(cos + t * size + half + d);
      f16x sin1 = _mm512_loadu_ps(sin + t * size + d), sin2 = _mm512_loadu_ps(sin + t * size + half + d);
      if (back) {
        const f16x swapped = sin1;
        sin1 = _mm512_sub_ps(_mm512_setzero_ps(), sin2), sin2 = _mm512_sub_ps(_mm512_setzero_ps(), swapped);
      }
      for (int64_t h = 0; h < heads; h++) {
        const bf16 *from = x + t * token + h * head + d;
        bf16 *to = out + (t * heads + h) * size + d;
        const f16x first = read_bf16(from), second = read_bf16(from + half);
        write_bf16(to, _mm512_fnmadd_ps(second, sin1, _mm512_mul_ps(first, cos1)));
        write_bf16(to + half, _mm512_fmadd_ps(first, sin2, _mm512_mul_ps(second, cos2)));
      }
    }
}

/* ---- gated activations: act(gate) * up, where act(x) = x / (1 + exp(-z(x))) ------------------------------------------------------- */

enum { SILU = 0, GELU_TANH = 1 }; /* z(x) = x; z(x) = 2 sqrt(2 / pi) (x + 0.044715 x^3), as tanh(y) = 2 / (1 + exp(-2 y)) - 1 */
#define GELU_SLOPE 1.5957691216f
#define GELU_CUBE 0.044715f

INLINE f16x inner(f16x x, int kind) {
  if (kind == SILU) return x;
  const f16x square = _mm512_mul_ps(x, x);
  const f16x more = _mm512_fmadd_ps(square, _mm512_set1_ps(GELU_CUBE), _mm512_set1_ps(1.0f));
  return _mm512_mul_ps(_mm512_mul_ps(x, _mm512_set1_ps(GELU_SLOPE)), more);
}

INLINE f16x inner_slope(f16x x, int kind) {
  if (kind == SILU) return _mm512_set1_ps(1.0f);
  return _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(3.0f * GELU_CUBE * GELU_SLOPE), _mm512_set1_ps(GELU_SLOPE));
}

INLINE f16x sigmoid(f16x z) {
  const f16x one = _mm512_set1_ps(1.0f); /* 2^126 at most: the sum stays finite, and what it divides is then 0 in bf16 */
  const f16x power = _mm512_min_ps(_mm512_set1_ps(126.0f), _mm512_mul_ps(z, _mm512_set1_ps(-LOG2_E)));
  return _mm512_div_ps(one, _mm512_add_ps(one, power_of_two(power)));
}

void campana_gated(const bf16 *gate, const bf16 *up, bf16 *out, int64_t n, int kind, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < n; i += 16) {
    const f16x x = read_bf16(gate + i);
    write_bf16(out + i, _mm512_mul_ps(_mm512_mul_ps(x, sigmoid(inner(x, kind))), read_bf16(up + i)));
  }
}

void campana_gated_backward(const bf16 *grad, const bf16 *gate, const bf16 *up, bf16 *grad_gate, bf16 *grad_up, int64_t n, int kind,
                            int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < n; i += 16) {
    const f16x x = read_bf16(gate + i), g = read_bf16(grad + i), share = sigmoid(inner(x, kind));
    const f16x activated = _mm512_mul_ps(x, share);
    const f16x rest = _mm512_sub_ps(_mm512_set1_ps(1.0f), share);
    const f16x slope = _mm512_fmadd_ps(_mm512_mul_ps(activated, rest), inner_slope(x, kind), share);
    write_bf16(grad_gate + i, _mm512_mul_ps(_mm512_mul_ps(g, read_bf16(up + i)), slope));
    write_bf16(grad_up + i, _mm512_mul_ps(g, activated));
  }
}

/* ---- norms: x / sqrt(mean(x^2) + eps) * weight ------------------------------------------------------------------------------------ */

INLINE f16x read_any(const void *x, int64_t at, int wide) {
  return wide ? _mm512_loadu_ps((const float *)x + at) : read_bf16((const bf16 *)x + at);
}

/* x (T, D), fp32 where `wide`, else bf16 -> out (T, D) bf16, and inverse (T), what a row was multiplied by. */
void campana_norm(const void *x, int wide, const float *weight, float eps, bf16 *out, float *inverse, int64_t tokens, int64_t size,
                  int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t t = 0; t < tokens; t++) {
    f16x sum = _mm512_setzero_ps();
    for (int64_t d = 0; d < size; d += 16) {
      const f16x each = read_any(x, t * size + d, wide);
      sum = _mm512_fmadd_ps(each, each, sum);
    }
    inverse[t] = 1.0f / sqrtf(_mm512_reduce_add_ps(sum) / (float)size + eps);
    const f16x times = _mm512_set1_ps(inverse[t]);
    for (int64_t d = 0; d < size; d += 16)
      write_bf16(out + t * size + d, _mm512_mul_ps(_mm512_mul_ps(read_any(x, t * size + d, wide), times), _mm512_loadu_ps(weight + d)));
  }
}

/* grad_x in x's type; `parts`, where it is not NULL: (blocks, D), the weight's gradient of each block of tokens. */
void campana_norm_backward(const bf16 *grad, const void *x, int wide, const float *inverse, const float *weight, void *grad_x, float *parts,
                           int64_t tokens, int64_t size, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t b = 0; b < (tokens + BLOCK - 1) / BLOCK; b++) {
    float *part = parts ? parts + b * size : NULL;
    if (part) memset(part, 0, (size_t)size * sizeof(float));
    for (int64_t t = b * BLOCK; t < least((b + 1) * BLOCK, tokens); t++) {
      const f16x times = _mm512_set1_ps(inverse[t]);
      f16x sum = _mm512_setzero_ps();
      for (int64_t d = 0; d < size; d += 16) {
        const f16x product = _mm512_mul_ps(read_bf16(grad + t * size + d), _mm512_mul_ps(read_any(x, t * size + d, wide), times));
        sum = _mm512_fmadd_ps(product, _mm512_loadu_ps(weight + d), sum);
        if (part) _mm512_storeu_ps(part + d, _mm512_add_ps(_mm512_loadu_ps(part + d), product));
      }
      const f16x mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / (float)size);
      for (int64_t d = 0; d < size; d += 16) {
        const f16x unit = _mm512_mul_ps(read_any(x, t * size + d, wide), times);
        const f16x straight = _mm512_mul_ps(read_bf16(grad + t * size + d), _mm512_loadu_ps(weight + d));
        const f16x found = _mm512_mul_ps(_mm512_fnmadd_ps(unit, mean, straight), times);
        if (wide) _mm512_storeu_ps((float *)grad_x + t * size + d, found);
        else write_bf16((bf16 *)grad_x + t * size + d, found);
      }
    }
  }
}

/* ---- the output layer's softmax --------------------------------------------------------------------------------------------------- */

INLINE f16x read_some(const bf16 *x, __mmask16 mask, f16x otherwise) {
  return _mm512_mask_blend_ps(mask, otherwise, widen(_mm256_maskz_loadu_epi16(mask, x)));
}

/* logits (rows, V) -> in their place the gradient of a row's cross-entropy by `scale` times its logits; losses (rows). */
void campana_cross_entropy(bf16 *logits, const int64_t *targets, float scale, double *losses, int64_t rows, int64_t words, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int64_t r = 0; r < rows; r++) {
    bf16 *row = logits + r * words;
    const f16x lowest = _mm512_set1_ps(-INFINITY), times = _mm512_set1_ps(scale * LOG2_E);
    const float wanted = scale * _mm512_cvtss_f32(widen(_mm256_castsi128_si256(_mm_cvtsi32_si128(row[targets[r]]))));
    f16x top = lowest, sum = _mm512_setzero_ps();
    for (int64_t v = 0; v < words; v += 16) {
      const __mmask16 mask = (__mmask16)((1u << least(16, words - v)) - 1);
      top = _mm512_max_ps(top, _mm512_mul_ps(read_some(row + v, mask, lowest), times));
    }
    const float largest = _mm512_reduce_max_ps(top);
    const f16x shift = _mm512_set1_ps(largest);
    for (int64_t v = 0; v < words; v += 16) {
      const __mmask16 mask = (__mmask16)((1u << least(16, words - v)) - 1);
      sum = _mm512_add_ps(sum, power_of_two(_mm512_fmsub_ps(read_some(row + v, mask, lowest), times, shift)));
    }
    const float total = _mm512_reduce_add_ps(sum);
    losses[r] = (double)largest / LOG2_E + log((double)total) - (double)wanted;
    const f16x share = _mm512_set1_ps(1.0f / total);
    for (int64_t v = 0; v < words; v += 16) {
      const __mmask16 mask = (__mmask16)((1u << least(16, words - v)) - 1);
      f16x found = _mm512_mul_ps(power_of_two(_mm512_fmsub_ps(read_some(row + v, mask, lowest), times, shift)), share);
      if (targets[r] - v < 16 && targets[r] >= v)
        found = _mm512_mask_sub_ps(found, (__mmask16)(1u << (targets[r] - v)), found, _mm512_set1_ps(1.0f));
      _mm256_mask_storeu_epi16(row + v, mask, narrow(found));
    }
  }
}
