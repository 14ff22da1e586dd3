// The passes of a training over memory that are not matrix products, each as one pass.
//
// torch computes a norm, a rotation or a loss in five to fifteen passes, each through memory: on a processor whose matrix products
// are fast that is most of the time. `compiler.py` compiles this file for the machine it runs on, `kernels.py` calls it.
//
// Every function takes contiguous rows and `threads`. No result depends on the number of threads: what is summed over rows is
// summed in blocks of ROWS first. Numbers are stored as `Number` (fp32 or bf16) and computed with in fp32.

#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr long ROWS = 64;

struct bf16 {
    uint16_t bits;
};

inline float wide(float x) { return x; }
inline float wide(bf16 x) {
    uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
    float y;
    std::memcpy(&y, &bits, 4);
    return y;
}
inline void put(float &to, float x) { to = x; }
inline void put(bf16 &to, float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    to.bits = static_cast<uint16_t>(x == x ? rounded : 0x7fc0u);
}
// A number as it comes out of memory that it was written to.
inline float through(float x, float) { return x; }
inline float through(float x, bf16) {
    bf16 y;
    put(y, x);
    return wide(y);
}

// x * y + z. Written out where it pays: elsewhere the compiler must not contract, as p - q would no longer be 0 where p equals q.
inline float fused(float x, float y, float z) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return __builtin_fmaf(x, y, z);
#else
    return x * y + z;
#endif
}

// e to the power of x, x <= 88: within 2 units in the last place; 1e-38 instead of smaller numbers; NaN stays NaN.
inline float power(float x) {
    x = x < -87.0f ? -87.0f : x;
    const float magic = 12582912.0f;  // 1.5 * 2^23: its sum with a small number is an integer in the low bits
    float shifted = x * 1.44269504f + magic;
    float n = shifted - magic;
    float r = fused(n, 2.12194440e-4f, fused(n, -0.693359375f, x));
    float y = 1.9875691500e-4f;
    y = fused(y, r, 1.3981999507e-3f);
    y = fused(y, r, 8.3334519073e-3f);
    y = fused(y, r, 4.1665795894e-2f);
    y = fused(y, r, 1.6666665459e-1f);
    y = fused(y, r, 5.0000001201e-1f);
    y = fused(y, r * r, r + 1.0f);
    uint32_t bits;
    std::memcpy(&bits, &shifted, 4);
    bits = (bits + 127u) << 23;
    float two;
    std::memcpy(&two, &bits, 4);
    return y * two;
}

// -- RMSNorm: y = w * round(x r), r = 1 / sqrt(mean(x^2) + eps) ------------------------------------------------------------

template <typename Number>
void rms_forward(const Number *x, const Number *w, Number *y, float *inverse, long rows, long width, float eps, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long row = 0; row < rows; ++row) {
        const Number *from = x + row * width;
        Number *to = y + row * width;
        float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
        for (long i = 0; i < width; ++i) squares += wide(from[i]) * wide(from[i]);
        float r = 1.0f / __builtin_sqrtf(squares / width + eps);
        inverse[row] = r;
#pragma omp simd
        for (long i = 0; i < width; ++i) put(to[i], wide(w[i]) * through(wide(from[i]) * r, Number{}));
    }
}

template <typename Number>
void rms_backward(const Number *g, const Number *x, const Number *w, const float *inverse, Number *to_x, float *to_w, long rows,
                  long width, int threads) {
    long blocks = (rows + ROWS - 1) / ROWS;
    std::vector<float> sums(blocks * width, 0.0f);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long block = 0; block < blocks; ++block) {
        float *of_w = sums.data() + block * width;
        long end = (block + 1) * ROWS < rows ? (block + 1) * ROWS : rows;
        for (long row = block * ROWS; row < end; ++row) {
            const Number *gs = g + row * width, *xs = x + row * width;
            Number *to = to_x + row * width;
            float r = inverse[row], along = 0.0f;
#pragma omp simd reduction(+ : along)
            for (long i = 0; i < width; ++i) {
                float unit = wide(xs[i]) * r;
                of_w[i] += wide(gs[i]) * unit;
                along += wide(gs[i]) * wide(w[i]) * unit;
            }
            along /= width;
#pragma omp simd
            for (long i = 0; i < width; ++i) put(to[i], r * (wide(gs[i]) * wide(w[i]) - wide(xs[i]) * r * along));
        }
    }
    for (long i = 0; i < width; ++i) to_w[i] = 0.0f;
    for (long block = 0; block < blocks; ++block)
        for (long i = 0; i < width; ++i) to_w[i] += sums[block * width + i];
}

// -- SwiGLU: y = round(silu(gate)) * up --------------------------------------------------------------------------------------

template <typename Number>
void gated_forward(const Number *gate, const Number *up, Number *y, long count, int threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (long i = 0; i < count; ++i) {
        float x = wide(gate[i]);
        float s = x / (1.0f + power(-x < 88.0f ? -x : 88.0f));
        put(y[i], through(s, Number{}) * wide(up[i]));
    }
}

template <typename Number>
void gated_backward(const Number *g, const Number *gate, const Number *up, Number *to_gate, Number *to_up, long count,
                    int threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (long i = 0; i < count; ++i) {
        float x = wide(gate[i]), given = wide(g[i]);
        float part = 1.0f / (1.0f + power(-x < 88.0f ? -x : 88.0f));
        put(to_up[i], given * x * part);
        put(to_gate[i], given * wide(up[i]) * part * (1.0f + x * (1.0f - part)));
    }
}

// -- Rotary positions: [rows, tokens, heads, width] -> [rows, heads, tokens, width], and back -------------------------------------
// With c and s in halves: y1 = x1 c1 - x2 s1, y2 = x2 c2 + x1 s2.

// Back is the same by the other angle, whose sine is the other half's with the other sign.

template <bool back, typename Number>
void rotate(const Number *from, const Number *cosines, const Number *sines, Number *to, long rows, long tokens, long heads,
            long width, long given, int threads) {
    long half = width / 2;
    float sign = back ? 1.0f : -1.0f;
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
    for (long row = 0; row < rows; ++row)
        for (long token = 0; token < tokens; ++token) {
            const Number *c = cosines + ((given == 1 ? 0 : row) * tokens + token) * width;
            const Number *s = sines + ((given == 1 ? 0 : row) * tokens + token) * width;
            const Number *near = back ? s + half : s, *far = back ? s : s + half;
            for (long head = 0; head < heads; ++head) {
                long by_token = ((row * tokens + token) * heads + head) * width;
                long by_head = ((row * heads + head) * tokens + token) * width;
                const Number *x = from + (back ? by_head : by_token);
                Number *y = to + (back ? by_token : by_head);
#pragma omp simd
                for (long i = 0; i < half; ++i) {
                    float one = wide(x[i]), two = wide(x[i + half]);
                    put(y[i], one * wide(c[i]) + sign * two * wide(near[i]));
                    put(y[i + half], two * wide(c[i + half]) - sign * one * wide(far[i]));
                }
            }
        }
}

// -- Causal attention: scores [groups, queries, keys] of queries first, first + 1, ... in place -----------------------------------

template <typename Number>
void causal_softmax(Number *scores, long groups, long queries, long keys, long first, float scale, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long row = 0; row < groups * queries; ++row) {
        Number *at = scores + row * keys;
        long seen = first + row % queries + 1;
        float most = wide(at[0]);
#pragma omp simd reduction(max : most)
        for (long i = 0; i < seen; ++i) most = wide(at[i]) > most ? wide(at[i]) : most;
        thread_local std::vector<float> kept;
        kept.resize(keys);
        float *likely = kept.data(), sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (long i = 0; i < seen; ++i) {
            likely[i] = power((wide(at[i]) - most) * scale);
            sum += likely[i];
        }
        float part = 1.0f / sum;
#pragma omp simd
        for (long i = 0; i < seen; ++i) put(at[i], likely[i] * part);
        for (long i = seen; i < keys; ++i) put(at[i], 0.0f);
    }
}

// The gradient by probabilities becomes the gradient by scores.
template <typename Number>
void causal_softmax_backward(const Number *likely, Number *gradient, long groups, long queries, long keys, long first,
                             float scale, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long row = 0; row < groups * queries; ++row) {
        const Number *p = likely + row * keys;
        Number *g = gradient + row * keys;
        long seen = first + row % queries + 1;
        float along = 0.0f;
#pragma omp simd reduction(+ : along)
        for (long i = 0; i < seen; ++i) along += wide(p[i]) * wide(g[i]);
#pragma omp simd
        for (long i = 0; i < seen; ++i) put(g[i], wide(p[i]) * (wide(g[i]) - along) * scale);
        for (long i = seen; i < keys; ++i) put(g[i], 0.0f);
    }
}

// -- The loss of rows of logits, whose place its gradient takes ---------------------------------------------------------------------
// kd T^2 KL(p || q) + ce * cross-entropy, q = softmax(z / T). The gradient by z is kd T (q - p) + ce (softmax(z) - onehot), over
// `count`. p is the softmax of the teacher's logits, or draws of it with weights.

inline float largest(const bf16 *z, long size) {
    float most = wide(z[0]);
#pragma omp simd reduction(max : most)
    for (long i = 0; i < size; ++i) most = wide(z[i]) > most ? wide(z[i]) : most;
    return most;
}

void loss_rows(bf16 *logits, const bf16 *teacher, const int64_t *ids, const float *drawn, const float *entropy, long kept,
               const int64_t *targets, long rows, long size, float temperature, float kd, float ce, float count, double *apart,
               double *surprise, int threads) {
    const bool soft = temperature != 1.0f;
    const float inverse = 1.0f / temperature, pull = kd * temperature, text = soft ? 0.0f : ce;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long row = 0; row < rows; ++row) {
        bf16 *z = logits + row * size;
        thread_local std::vector<float> buffer;
        buffer.resize(size);
        float *gradient = buffer.data();
        const float most = largest(z, size);
        float sum = 0.0f, plain = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (long i = 0; i < size; ++i) {
            gradient[i] = power((wide(z[i]) - most) * inverse);
            sum += gradient[i];
        }
        plain = sum;
        if (soft) {
            plain = 0.0f;
#pragma omp simd reduction(+ : plain)
            for (long i = 0; i < size; ++i) plain += power(wide(z[i]) - most);
        }
        const float log_sum = __builtin_logf(sum), log_plain = soft ? __builtin_logf(plain) : log_sum;
        const float target = wide(z[targets[row]]) - most;
        surprise[row] = static_cast<double>(log_plain) - target;
        double value = 0.0;
        if (teacher != nullptr) {
            const bf16 *t = teacher + row * size;
            const float highest = largest(t, size);
            float total = 0.0f, weighed = 0.0f;
#pragma omp simd reduction(+ : total, weighed)
            for (long i = 0; i < size; ++i) {
                float e = power((wide(t[i]) - highest) * inverse);
                total += e;
                weighed += e * ((wide(t[i]) - highest) - (wide(z[i]) - most));
            }
            value = static_cast<double>(weighed) / total * inverse - (__builtin_logf(total) - log_sum);
            const float ours = 1.0f / sum, theirs = 1.0f / total;
#pragma omp simd
            for (long i = 0; i < size; ++i) {
                // Apart before they are weighed: exactly zero where both are equal.
                float q = gradient[i] * ours;
                float p = power((wide(t[i]) - highest) * inverse) * theirs;
                gradient[i] = pull * (q - p) + text * q;
            }
        } else {
            const float share = (pull + text) / sum;
#pragma omp simd
            for (long i = 0; i < size; ++i) gradient[i] *= share;
            value = -entropy[row];
            for (long i = 0; i < kept; ++i) {
                const int64_t id = ids[row * kept + i];
                const float weight = drawn[row * kept + i];
                value -= weight * ((wide(z[id]) - most) * inverse - log_sum);
                gradient[id] -= pull * weight;
            }
        }
        if (soft && ce != 0.0f) {
            const float share = ce / plain;
#pragma omp simd
            for (long i = 0; i < size; ++i) gradient[i] += share * power(wide(z[i]) - most);
        }
        gradient[targets[row]] -= ce;
        apart[row] = value * temperature * temperature;
        const float over = 1.0f / count;
#pragma omp simd
        for (long i = 0; i < size; ++i) put(z[i], gradient[i] * over);
    }
}

// -- One minus the cosine of rows, as half of the squared distance of unit vectors, and its gradient -----------------------------------

template <typename Number>
void cosine_rows(const Number *x, const Number *other, Number *gradient, double *values, long rows, long width, long stride,
                 int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long row = 0; row < rows; ++row) {
        const Number *a = x + row * width, *b = other + row * stride;
        Number *to = gradient + row * width;
        float ours = 0.0f, theirs = 0.0f;
#pragma omp simd reduction(+ : ours)
        for (long i = 0; i < width; ++i) ours += wide(a[i]) * wide(a[i]);
#pragma omp simd reduction(+ : theirs)
        for (long i = 0; i < width; ++i) theirs += wide(b[i]) * wide(b[i]);
        const float tiny = 1e-12f;
        float one = __builtin_sqrtf(ours), two = __builtin_sqrtf(theirs);
        one = 1.0f / (one < tiny ? tiny : one);
        two = 1.0f / (two < tiny ? tiny : two);
        float squares = 0.0f, along = 0.0f;
#pragma omp simd reduction(+ : squares, along)
        for (long i = 0; i < width; ++i) {
            float unit = wide(a[i]) * one, difference = unit - wide(b[i]) * two;
            squares += difference * difference;
            along += unit * difference;
        }
        values[row] = 0.5 * squares;
#pragma omp simd
        for (long i = 0; i < width; ++i) {
            float unit = wide(a[i]) * one, difference = unit - wide(b[i]) * two;
            put(to[i], one * (difference - unit * along));
        }
    }
}

}  // namespace

#define AT(T, pointer) reinterpret_cast<T *>(pointer)

// What Python calls: each function for both types.
#define OF_TYPE(T, suffix) \
    extern "C" void rms_forward_##suffix(void *x, void *w, void *y, void *inverse, long rows, long width, float eps, int threads) { \
        rms_forward(AT(T, x), AT(T, w), AT(T, y), AT(float, inverse), rows, width, eps, threads); \
    } \
    extern "C" void rms_backward_##suffix(void *g, void *x, void *w, void *inverse, void *to_x, void *to_w, long rows, long width, int threads) { \
        rms_backward(AT(T, g), AT(T, x), AT(T, w), AT(float, inverse), AT(T, to_x), AT(float, to_w), rows, width, threads); \
    } \
    extern "C" void gated_forward_##suffix(void *gate, void *up, void *y, long count, int threads) { \
        gated_forward(AT(T, gate), AT(T, up), AT(T, y), count, threads); \
    } \
    extern "C" void gated_backward_##suffix(void *g, void *gate, void *up, void *to_gate, void *to_up, long count, int threads) { \
        gated_backward(AT(T, g), AT(T, gate), AT(T, up), AT(T, to_gate), AT(T, to_up), count, threads); \
    } \
    extern "C" void rotate_##suffix(void *x, void *c, void *s, void *y, long rows, long tokens, long heads, long width, long given, int threads) { \
        rotate<false>(AT(T, x), AT(T, c), AT(T, s), AT(T, y), rows, tokens, heads, width, given, threads); \
    } \
    extern "C" void rotate_back_##suffix(void *g, void *c, void *s, void *to_x, long rows, long tokens, long heads, long width, long given, int threads) { \
        rotate<true>(AT(T, g), AT(T, c), AT(T, s), AT(T, to_x), rows, tokens, heads, width, given, threads); \
    } \
    extern "C" void causal_softmax_##suffix(void *scores, long groups, long queries, long keys, long first, float scale, int threads) { \
        causal_softmax(AT(T, scores), groups, queries, keys, first, scale, threads); \
    } \
    extern "C" void causal_softmax_backward_##suffix(void *likely, void *g, long groups, long queries, long keys, long first, float scale, int threads) { \
        causal_softmax_backward(AT(T, likely), AT(T, g), groups, queries, keys, first, scale, threads); \
    } \
    extern "C" void cosine_rows_##suffix(void *x, void *other, void *gradient, void *values, long rows, long width, long stride, int threads) { \
        cosine_rows(AT(T, x), AT(T, other), AT(T, gradient), AT(double, values), rows, width, stride, threads); \
    } \

OF_TYPE(float, fp32)
OF_TYPE(bf16, bf16)

extern "C" void loss_rows_bf16(void *logits, void *teacher, void *ids, void *drawn, void *entropy, long kept, void *targets,
                               long rows, long size, float temperature, float kd, float ce, float count, void *apart,
                               void *surprise, int threads) {
    loss_rows(AT(bf16, logits), AT(bf16, teacher), AT(int64_t, ids), AT(float, drawn), AT(float, entropy), kept,
              AT(int64_t, targets), rows, size, temperature, kd, ce, count, AT(double, apart), AT(double, surprise), threads);
}
