/* Several steps of one member after another, whose tensors stay near the core meanwhile. */

#include <math.h>

typedef void (*member_run)(long, long, void **, const long *, char *);

/* A function of all members: where its tensors lie at the first step, and by how many bytes each
   of these places moves from step to step. */
typedef struct {
    member_run run;
    long count;
    void **pointers;
    const long *steps;
    const long *moves;
    char *scratch;
} call;

void bind(void *single, void *wide) { (void)single, (void)wide; }

static int is_finite(const void *numbers, long place, long wide)
{
    return isfinite(wide ? ((const double *)numbers)[place] : ((const float *)numbers)[place]);
}

/* The first call gives what must be finite before the others may go on: ``watched`` tensors
   [steps, members]. ``done`` counts the steps of each member until one was not. */
void run(long members, long steps, long calls, const call *given, long watched,
         void **numbers, long wide, long *done)
{
    for (long k = 0; k < members; k++) {
        for (done[k] = 0; done[k] < steps; done[k]++) {
            int goes = 1;
            for (long c = 0; c < calls && goes; c++) {
                const call *own = &given[c];
                void *places[own->count];
                for (long i = 0; i < own->count; i++)
                    places[i] = (char *)own->pointers[i] + done[k] * own->moves[i];
                own->run(k, k + 1, places, own->steps, own->scratch);
                for (long i = 0; c == 0 && i < watched; i++)
                    goes = goes && is_finite(numbers[i], done[k] * members + k, wide);
            }
            if (!goes)
                break;
        }
    }
}
