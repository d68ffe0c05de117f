/* What the C files for bf16 use of AVX-512, for a processor with AVX2 and FMA alone: their tests then run on any machine.

   GCC compiles them with this file in place of its own <immintrin.h>. Each operation is what Intel's guide to intrinsics says it is, to the
   bit, but for one thing: subnormal numbers are kept where VDPBF16PS and VCVTNEPS2BF16 take them for 0. Speed is not asked for. */

#ifndef EMULATED_AVX512
#define EMULATED_AVX512

#define _IMMINTRIN_H_INCLUDED /* GCC's files of parts ask who includes them */
#include <smmintrin.h>
#include <avxintrin.h>
#include <avx2intrin.h>
#include <fmaintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define EMULATED static inline __attribute__((always_inline, unused))
#define VECTOR __attribute__((vector_size(64), may_alias))
#define EACH for (int i = 0; i < 16; i++)

typedef float __m512 VECTOR;
typedef double __m512d VECTOR;
typedef long long __m512i VECTOR;
typedef short __m512bh VECTOR;
typedef short __m256bh __attribute__((vector_size(32), may_alias));
typedef int Words VECTOR;
typedef uint16_t __mmask16;

/* ---- memory, constants, other names of the same bits ------------------------------------------------------------------------------- */

EMULATED __m512 _mm512_loadu_ps(const void *x) { __m512 y; memcpy(&y, x, 64); return y; }
EMULATED __m512i _mm512_loadu_si512(const void *x) { __m512i y; memcpy(&y, x, 64); return y; }
EMULATED void _mm512_storeu_ps(void *to, __m512 x) { memcpy(to, &x, 64); }
EMULATED void _mm512_storeu_si512(void *to, __m512i x) { memcpy(to, &x, 64); }
EMULATED __m512 _mm512_setzero_ps(void) { return (__m512){0}; }
EMULATED __m512i _mm512_setzero_si512(void) { return (__m512i){0}; }
EMULATED __m512 _mm512_set1_ps(float x) { __m512 y; EACH y[i] = x; return y; }
EMULATED __m512i _mm512_set1_epi32(int x) { Words y; EACH y[i] = x; return (__m512i)y; }
#define _mm512_setr_epi32(...) ((__m512i)(Words){__VA_ARGS__})
EMULATED __m512 _mm512_castsi512_ps(__m512i x) { return (__m512)x; }
EMULATED __m512i _mm512_castps_si512(__m512 x) { return (__m512i)x; }
EMULATED __m512d _mm512_castps_pd(__m512 x) { return (__m512d)x; }
EMULATED __m512 _mm512_castpd_ps(__m512d x) { return (__m512)x; }
EMULATED float _mm512_cvtss_f32(__m512 x) { return x[0]; }

/* ---- arithmetic -------------------------------------------------------------------------------------------------------------------- */

EMULATED __m512 _mm512_add_ps(__m512 a, __m512 b) { return a + b; }
EMULATED __m512 _mm512_sub_ps(__m512 a, __m512 b) { return a - b; }
EMULATED __m512 _mm512_mul_ps(__m512 a, __m512 b) { return a * b; }
EMULATED __m512 _mm512_div_ps(__m512 a, __m512 b) { return a / b; }
EMULATED __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) { EACH c[i] = __builtin_fmaf(a[i], b[i], c[i]); return c; }
EMULATED __m512 _mm512_fmsub_ps(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, -c); }
EMULATED __m512 _mm512_fnmadd_ps(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(-a, b, c); }
EMULATED __m512 _mm512_max_ps(__m512 a, __m512 b) { EACH a[i] = a[i] > b[i] ? a[i] : b[i]; return a; } /* of a NaN the second */
EMULATED __m512 _mm512_min_ps(__m512 a, __m512 b) { EACH a[i] = a[i] < b[i] ? a[i] : b[i]; return a; }
EMULATED __m512 _mm512_roundscale_ps(__m512 x, int how) { (void)how; EACH x[i] = __builtin_rintf(x[i]); return x; } /* to the nearest */
EMULATED __m512 _mm512_scalef_ps(__m512 x, __m512 power) {
  EACH x[i] = isnan(power[i]) ? power[i] : ldexpf(x[i], (int)floorf(power[i]));
  return x;
}
EMULATED float _mm512_reduce_add_ps(__m512 x) {
  for (int width = 8; width; width /= 2)
    for (int i = 0; i < width; i++) x[i] += x[i + width];
  return x[0];
}
EMULATED float _mm512_reduce_max_ps(__m512 x) {
  for (int i = 1; i < 16; i++) x[0] = x[0] > x[i] ? x[0] : x[i];
  return x[0];
}

/* ---- whole numbers ----------------------------------------------------------------------------------------------------------------- */

EMULATED __m512i _mm512_add_epi32(__m512i a, __m512i b) { return (__m512i)((Words)a + (Words)b); }
EMULATED __m512i _mm512_and_si512(__m512i a, __m512i b) { return a & b; }
EMULATED __m512i _mm512_or_si512(__m512i a, __m512i b) { return a | b; }
EMULATED __m512i _mm512_slli_epi32(__m512i x, int by) { return (__m512i)((Words)x << by); }
EMULATED __m512i _mm512_cvtepu16_epi32(__m256i x) {
  uint16_t narrow[16];
  memcpy(narrow, &x, 32);
  Words y;
  EACH y[i] = narrow[i];
  return (__m512i)y;
}
EMULATED __mmask16 _mm512_cmplt_epi32_mask(__m512i a, __m512i b) {
  unsigned mask = 0;
  EACH mask |= (unsigned)(((Words)a)[i] < ((Words)b)[i]) << i;
  return (__mmask16)mask;
}
EMULATED __mmask16 _mm512_cmpge_epi32_mask(__m512i a, __m512i b) { return (__mmask16)~_mm512_cmplt_epi32_mask(a, b); }

/* ---- where a mask's bit is set ----------------------------------------------------------------------------------------------------- */

EMULATED __m512 _mm512_mask_blend_ps(__mmask16 mask, __m512 a, __m512 b) { EACH a[i] = mask >> i & 1 ? b[i] : a[i]; return a; }
EMULATED __m512 _mm512_mask_sub_ps(__m512 or, __mmask16 mask, __m512 a, __m512 b) { return _mm512_mask_blend_ps(mask, or, a - b); }
EMULATED __m512 _mm512_mask_mul_ps(__m512 or, __mmask16 mask, __m512 a, __m512 b) { return _mm512_mask_blend_ps(mask, or, a * b); }
EMULATED __m512i _mm512_maskz_loadu_epi32(__mmask16 mask, const void *x) { /* what is not asked for may not be touched */
  Words y = {0};
  EACH if (mask >> i & 1) { int word; memcpy(&word, (const char *)x + 4 * i, 4); y[i] = word; }
  return (__m512i)y;
}
EMULATED __m256i _mm256_maskz_loadu_epi16(__mmask16 mask, const void *x) {
  uint16_t part[16] = {0};
  EACH if (mask >> i & 1) memcpy(part + i, (const char *)x + 2 * i, 2);
  __m256i y;
  memcpy(&y, part, 32);
  return y;
}
EMULATED void _mm512_mask_storeu_ps(void *to, __mmask16 mask, __m512 x) {
  EACH if (mask >> i & 1) { float one = x[i]; memcpy((char *)to + 4 * i, &one, 4); }
}
EMULATED void _mm256_mask_storeu_epi16(void *to, __mmask16 mask, __m256i x) {
  EACH if (mask >> i & 1) memcpy((char *)to + 2 * i, (const char *)&x + 2 * i, 2);
}

/* ---- order ------------------------------------------------------------------------------------------------------------------------- */

#define OF_QUARTERS(a, b, ...) __builtin_shuffle((Words)(a), (Words)(b), (Words){__VA_ARGS__})
#define LOW_WORDS 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29
#define HIGH_WORDS 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31
#define LOW_PAIRS 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define HIGH_PAIRS 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
EMULATED __m512i _mm512_unpacklo_epi32(__m512i a, __m512i b) { return (__m512i)OF_QUARTERS(a, b, LOW_WORDS); }
EMULATED __m512i _mm512_unpackhi_epi32(__m512i a, __m512i b) { return (__m512i)OF_QUARTERS(a, b, HIGH_WORDS); }
EMULATED __m512i _mm512_unpacklo_epi64(__m512i a, __m512i b) { return (__m512i)OF_QUARTERS(a, b, LOW_PAIRS); }
EMULATED __m512i _mm512_unpackhi_epi64(__m512i a, __m512i b) { return (__m512i)OF_QUARTERS(a, b, HIGH_PAIRS); }
EMULATED __m512 _mm512_unpacklo_ps(__m512 a, __m512 b) { return (__m512)OF_QUARTERS(a, b, LOW_WORDS); }
EMULATED __m512 _mm512_unpackhi_ps(__m512 a, __m512 b) { return (__m512)OF_QUARTERS(a, b, HIGH_WORDS); }
EMULATED __m512d _mm512_unpacklo_pd(__m512d a, __m512d b) { return (__m512d)OF_QUARTERS(a, b, LOW_PAIRS); }
EMULATED __m512d _mm512_unpackhi_pd(__m512d a, __m512d b) { return (__m512d)OF_QUARTERS(a, b, HIGH_PAIRS); }
EMULATED __m512i _mm512_shuffle_i32x4(__m512i a, __m512i b, int quarters) { /* two of a's, then two of b's */
  Words order;
  EACH order[i] = 4 * (quarters >> (2 * (i / 4)) & 3) + i % 4 + (i < 8 ? 0 : 16);
  return (__m512i)__builtin_shuffle((Words)a, (Words)b, order);
}
EMULATED __m512 _mm512_shuffle_f32x4(__m512 a, __m512 b, int quarters) {
  return (__m512)_mm512_shuffle_i32x4((__m512i)a, (__m512i)b, quarters);
}

/* ---- bf16 -------------------------------------------------------------------------------------------------------------------------- */

EMULATED __m256bh _mm512_cvtneps_pbh(__m512 x) { /* to the nearest, halves to the even one */
  const Words bits = (Words)x;
  __m256bh y;
  EACH y[i] = (short)(isnan(x[i]) ? (uint32_t)bits[i] >> 16 | 0x40 : ((uint32_t)bits[i] + 0x7fff + ((uint32_t)bits[i] >> 16 & 1)) >> 16);
  return y;
}
EMULATED __m512 _mm512_dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) { /* the odd ones of each pair, then the even ones */
  const Words high = (Words)_mm512_set1_epi32((int)0xffff0000);
  sum = _mm512_fmadd_ps((__m512)((Words)a & high), (__m512)((Words)b & high), sum);
  return _mm512_fmadd_ps((__m512)((Words)a << 16), (__m512)((Words)b << 16), sum);
}

#endif
