/* What all C files share. */

#ifndef CAMPANA_BASE_H
#define CAMPANA_BASE_H

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define LOG2_E 1.44269504f

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE int64_t up(int64_t a, int64_t to) { return (a + to - 1) / to * to; }

#endif
