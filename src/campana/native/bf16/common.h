/* What the C files for bf16 share: types, rounding, 2^x. */

#ifndef CAMPANA_COMMON_H
#define CAMPANA_COMMON_H

#include "../base.h"

typedef uint16_t bf16;
typedef __m512 f16x; /* 16 floats */

INLINE __m256i narrow(f16x x) { return (__m256i)_mm512_cvtneps_pbh(x); }
INLINE f16x widen(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }
INLINE f16x read_bf16(const bf16 *x) { return widen(_mm256_loadu_si256((const __m256i *)x)); }
INLINE void write_bf16(bf16 *x, f16x y) { _mm256_storeu_si256((__m256i *)x, narrow(y)); }

/* 2^x to 2e-7 of itself, 0 below 2^-149: the fraction in [-1/2, 1/2] by a polynomial (Taylor's, in powers of ln 2), the rest exactly. */
INLINE f16x power_of_two(f16x x) {
  x = _mm512_max_ps(_mm512_set1_ps(-200.0f), x); /* in this order: of a NaN the second is taken, so it stays one */
  const f16x whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const f16x rest = _mm512_sub_ps(x, whole);
  f16x y = _mm512_set1_ps(1.5403530e-4f);
  y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(1.3333558e-3f));
  y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(9.6181291e-3f));
  y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(5.5504109e-2f));
  y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(2.4022651e-1f));
  y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(6.9314718e-1f));
  y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(y, whole);
}

#endif
