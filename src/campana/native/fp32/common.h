/* What the C files for fp32 share: eight floats, 2^x, sums across a register. */

#ifndef CAMPANA_COMMON_H
#define CAMPANA_COMMON_H

#include "../base.h"

typedef __m256 f8x; /* 8 floats; the compiler knows sums and products of them */

INLINE f8x read(const float *x) { return _mm256_loadu_ps(x); }
INLINE void write(float *x, f8x y) { _mm256_storeu_ps(x, y); }
INLINE f8x all(float x) { return _mm256_set1_ps(x); }

/* a b + c, rounded once. A compiler may make it of a * b + c, or not, by what stands around it: where sums of one kind are made in
   several places, and must be the same to the bit, it is asked for. */
INLINE f8x plus(f8x a, f8x b, f8x c) { return _mm256_fmadd_ps(a, b, c); }

/* 2^x to 2e-7 of itself, 0 below 2^-126: the fraction in [-1/2, 1/2] by a polynomial (Taylor's, in powers of ln 2), the rest exactly. */
INLINE f8x power_of_two(f8x x) {
  const f8x lowest = all(-126.0f), bounded = _mm256_max_ps(lowest, x); /* in this order: of a NaN the second is taken, so it stays one */
  const f8x whole = _mm256_round_ps(bounded, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const f8x rest = bounded - whole;
  f8x y = all(1.5403530e-4f);
  y = plus(y, rest, all(1.3333558e-3f));
  y = plus(y, rest, all(9.6181291e-3f));
  y = plus(y, rest, all(5.5504109e-2f));
  y = plus(y, rest, all(2.4022651e-1f));
  y = plus(y, rest, all(6.9314718e-1f));
  y = plus(y, rest, all(1.0f));
  const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127)), 23);
  return _mm256_andnot_ps(_mm256_cmp_ps(x, lowest, _CMP_LT_OQ), y * _mm256_castsi256_ps(exponent));
}

INLINE float sum_of(f8x x) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

INLINE float largest_of(f8x x) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

#endif
