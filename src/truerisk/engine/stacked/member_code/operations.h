/* What operations on one member are made of, for float and double. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__GLIBC__) && defined(__x86_64__) && !defined(__clang__)
/* glibc has these for whole registers (libmvec), but tells gcc so under -ffast-math only */
#define IN_REGISTERS __attribute__((simd("notinbranch"), const, nothrow))
extern float expf(float) IN_REGISTERS;
extern double exp(double) IN_REGISTERS;
extern float tanhf(float) IN_REGISTERS;
extern double tanh(double) IN_REGISTERS;
extern float erff(float) IN_REGISTERS;
extern double erf(double) IN_REGISTERS;
extern float logf(float) IN_REGISTERS;
extern double log(double) IN_REGISTERS;
#endif

/* rows of a source, side by side */
static inline void pick_rows(void *out, const void *source, const int64_t *index, long count,
                             long size)
{
    for (long i = 0; i < count; i++)
        memcpy((char *)out + i * size, (const char *)source + index[i] * size, size);
}

#define COLUMNS 64 /* that many numbers side by side are taken at a time */

/* C = alpha A B + beta C of Fortran's BLAS, which has matrices by columns */
#define GEMM(T)                                                                                    \
    typedef void (*T##_gemm)(const char *, const char *, const int *, const int *, const int *,    \
                             const T *, const T *, const int *, const T *, const int *,            \
                             const T *, T *, const int *);
GEMM(float)
GEMM(double)

static float_gemm sgemm;
static double_gemm dgemm;

void bind(void *single, void *wide)
{
    sgemm = (float_gemm)single;
    dgemm = (double_gemm)wide;
}

#define OPERATIONS(T, NAME, EXP, LOG, ERF)                                                         \
    static inline void NAME##product(int n, int m, int k, char tb, int ldb, const T *b, char ta,   \
                                     int lda, const T *a, int add, T *c, int ldc)                  \
    {                                                                                              \
        const T one = 1, beta = add;                                                               \
        NAME##gemm(&tb, &ta, &n, &m, &k, &one, b, &ldb, a, &lda, &beta, c, &ldc);                  \
    }                                                                                              \
                                                                                                   \
    /* x Phi(x), and its derivative */                                                             \
    static inline T gelu_##T(T x)                                                                  \
    {                                                                                              \
        return x * (T)0.5 * (1 + ERF(x * (T)0.70710678118654752440));                              \
    }                                                                                              \
                                                                                                   \
    static inline T gelu_slope_##T(T x)                                                            \
    {                                                                                              \
        const T density = (T)0.39894228040143267794 * EXP(-x * x / 2);                             \
        return (T)0.5 * (1 + ERF(x * (T)0.70710678118654752440)) + x * density;                    \
    }                                                                                              \
                                                                                                   \
    static inline T silu_slope_##T(T x)                                                            \
    {                                                                                              \
        const T share = 1 / (1 + EXP(-x));                                                         \
        return share * (1 + x * (1 - share));                                                      \
    }                                                                                              \
                                                                                                   \
    static inline T halve_##T(T *part)                                                             \
    {                                                                                              \
        for (int step = 8; step; step /= 2)                                                        \
            for (int j = 0; j < step; j++)                                                         \
                part[j] += part[j + step];                                                         \
        return part[0];                                                                            \
    }                                                                                              \
                                                                                                   \
    static inline T sum_##T(const T *x, int n)                                                     \
    {                                                                                              \
        T part[16] = {0}, total = 0;                                                               \
        int i = 0;                                                                                 \
        for (; i + 16 <= n; i += 16)                                                               \
            for (int j = 0; j < 16; j++)                                                           \
                part[j] += x[i + j];                                                               \
        for (; i < n; i++)                                                                         \
            total += x[i];                                                                         \
        return total + halve_##T(part);                                                            \
    }                                                                                              \
                                                                                                   \
    static inline T sum_squares_##T(const T *x, int n)                                             \
    {                                                                                              \
        T part[16] = {0}, total = 0;                                                               \
        int i = 0;                                                                                 \
        for (; i + 16 <= n; i += 16)                                                               \
            for (int j = 0; j < 16; j++)                                                           \
                part[j] += x[i + j] * x[i + j];                                                    \
        for (; i < n; i++)                                                                         \
            total += x[i] * x[i];                                                                  \
        return total + halve_##T(part);                                                            \
    }                                                                                              \
                                                                                                   \
    /* log p = x - max - log sum exp(x - max) */                                                   \
    static inline void log_softmax_##T(int classes, int n, T *out, long oc, long on, const T *x,   \
                                       long xc, long xn)                                           \
    {                                                                                              \
        T top[COLUMNS], total[COLUMNS];                                                            \
        for (int first = 0; first < n; first += COLUMNS) {                                         \
            const int count = n - first < COLUMNS ? n - first : COLUMNS;                           \
            const T *own = x + first * xn;                                                         \
            T *there = out + first * on;                                                           \
            for (int j = 0; j < count; j++) {                                                      \
                top[j] = own[j * xn];                                                              \
                total[j] = 0;                                                                      \
            }                                                                                      \
            for (int c = 1; c < classes; c++)                                                      \
                for (int j = 0; j < count; j++) {                                                  \
                    const T value = own[c * xc + j * xn];                                          \
                    top[j] = value < top[j] ? top[j] : value;                                      \
                }                                                                                  \
            for (int c = 0; c < classes; c++)                                                      \
                for (int j = 0; j < count; j++)                                                    \
                    total[j] += EXP(own[c * xc + j * xn] - top[j]);                                \
            for (int j = 0; j < count; j++)                                                        \
                total[j] = LOG(total[j]);                                                          \
            for (int c = 0; c < classes; c++)                                                      \
                for (int j = 0; j < count; j++)                                                    \
                    there[c * oc + j * on] = own[c * xc + j * xn] - top[j] - total[j];             \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    /* g - p sum g */                                                                              \
    static inline void log_softmax_backward_data_##T(int classes, int n, T *out, long oc, long on, \
                                                     const T *g, long gc, long gn, const T *log_p, \
                                                     long pc, long pn)                             \
    {                                                                                              \
        T total[COLUMNS];                                                                          \
        for (int first = 0; first < n; first += COLUMNS) {                                         \
            const int count = n - first < COLUMNS ? n - first : COLUMNS;                           \
            const T *own = g + first * gn, *p = log_p + first * pn;                                \
            T *there = out + first * on;                                                           \
            for (int j = 0; j < count; j++)                                                        \
                total[j] = 0;                                                                      \
            for (int c = 0; c < classes; c++)                                                      \
                for (int j = 0; j < count; j++)                                                    \
                    total[j] += own[c * gc + j * gn];                                              \
            for (int c = 0; c < classes; c++)                                                      \
                for (int j = 0; j < count; j++)                                                    \
                    there[c * oc + j * on] =                                                       \
                        own[c * gc + j * gn] - EXP(p[c * pc + j * pn]) * total[j];                 \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    /* -log p of the label: 0 of a negative one (torch's -100), none beyond the classes */                 \
    static inline void nll_loss2d_forward_##T(int classes, int n, T *out, long oc, long on,        \
                                              const T *log_p, long pc, long pn, const int64_t *y,  \
                                              long yc, long yn)                                    \
    {                                                                                              \
        for (int j = 0; j < n; j++)                                                                \
            out[j * on] = y[j * yn] < 0         ? 0                                                \
                          : y[j * yn] < classes ? -log_p[y[j * yn] * pc + j * pn]                  \
                                                : (T)NAN;                                          \
    }                                                                                              \
                                                                                                   \
    static inline void nll_loss2d_backward_##T(int classes, int n, T *out, long oc, long on,       \
                                               const T *g, long gc, long gn, const int64_t *y,     \
                                               long yc, long yn)                                   \
    {                                                                                              \
        for (int c = 0; c < classes; c++)                                                          \
            for (int j = 0; j < n; j++)                                                            \
                out[c * oc + j * on] = 0;                                                          \
        for (int j = 0; j < n; j++)                                                                \
            if (y[j * yn] >= 0 && y[j * yn] < classes)                                             \
                out[y[j * yn] * oc + j * on] = -g[j * gn];                                         \
    }                                                                                              \
                                                                                                   \
    /* the first of the largest, or of those that are no number */                                 \
    static inline void max_##T(int classes, int n, T *top, long tc, long tn, int64_t *at, long ac, \
                               long an, const T *x, long xc, long xn)                              \
    {                                                                                              \
        for (int j = 0; j < n; j++) {                                                              \
            top[j * tn] = x[j * xn];                                                               \
            at[j * an] = 0;                                                                        \
        }                                                                                          \
        for (int c = 1; c < classes; c++)                                                          \
            for (int j = 0; j < n; j++) {                                                          \
                const T value = x[c * xc + j * xn], old = top[j * tn];                             \
                const int larger = value > old || (value != value && old == old);                  \
                top[j * tn] = larger ? value : old;                                                \
                at[j * an] = larger ? c : at[j * an];                                              \
            }                                                                                      \
    }

OPERATIONS(float, s, expf, logf, erff)
OPERATIONS(double, d, exp, log, erf)
