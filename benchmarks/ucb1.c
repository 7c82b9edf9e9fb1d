/* The yardstick: what a C programmer would write for the compiled rollout of UCB1, on the very same arrays.

   It plays the same game, in the same arithmetic, and must choose the same arms: index = mean - mu * (edge + share * offload)
   + beta * sqrt(ln t) / sqrt(n); carry the decision out; learn from what it reveals; add the round to the sums; keep the sums at
   the checkpoints.  Nothing is left out that the loop has to do, and nothing is done that nobody reads:

   - the bandit keeps plain arrays, not a general state; quotes are read where they lie; nothing may fail, nothing is checked;
   - of the observation only what UCB1 may learn from is made: who answered, how surely, and whether it was sent.  `ucb1_rows` writes
     the whole observation instead (confidence and class of every exit, nan and -1 where hidden), as the general loop does;
   - a sample's facts are read when their round comes, as one would write it first.  `ucb1_ahead` asks the memory for them some
     rounds before, as our loop does since it was seen to wait for them half of its time.

   Built without -ffast-math, and without contraction to fused multiply-adds, which would round differently and so play other arms. */

#include <math.h>
#include <stdint.h>

enum { REWARD, EDGE, OFFLOAD, REGRET, OFFLOADS, AUDITS, CORRECT, AGREEMENT, MACS, BYTES, FIELDS };
enum { MU = 1, COSTS = 9 }; /* where a row of quotes keeps mu, and the L + 1 edge costs that L + 1 offload costs follow */
enum { MOST_ARMS = 128, MOST_EXITS = 32 };
enum { AHEAD = 8 }; /* rounds from asking for a sample's facts to reading them, as in our loop */

typedef struct {
    int64_t arms, exits, samples, prices, width, table, checkpoints; /* K, L, N, P, numbers in a row of quotes, A, R */
    double beta;
    int prefix; /* are the heads before the cut evaluated? */
    const double *confidence; /* (S, N, L) */
    const int16_t *prediction; /* (S, N, L) */
    const int16_t *label; /* (N,) */
    const double *quotes; /* (P, width) */
    const double *gap; /* (S, P, A) */
    const double *work; /* (2, L + 1) multiply-accumulates up to each cut, bytes sent from there */
    const double *threshold; /* (K,) */
    const int64_t *cut, *index; /* (K,) the cut, and the place in the table of A arms */
    const int64_t *at; /* (R,) checkpoints */
    double *totals, *kept; /* (FIELDS + A,), (R, FIELDS + A) */
} World;

typedef struct {
    double mean[MOST_ARMS], share[MOST_ARMS], root[MOST_ARMS], pulls[MOST_ARMS];
} Bandit;

typedef struct {
    int64_t answered_at;
    int offloaded;
    double answer; /* confidence of the answer that was served */
    double confidence[MOST_EXITS], prediction[MOST_EXITS]; /* by `reveal_all` alone */
} Observation;

static inline int64_t best_arm(const World *w, const Bandit *b, const double *quote, double width) {
    const double mu = quote[MU], *edge = quote + COSTS, *offload = edge + w->exits + 1;
    double highest = -INFINITY;
    int64_t best = 0;
    for (int64_t a = 0; a < w->arms; a++) {
        double price = edge[w->cut[a]];
        if (b->share[a] > 0.0) /* an offload that is not offered costs +inf */
            price += b->share[a] * offload[w->cut[a]];
        const double value = b->mean[a] - mu * price + width * b->root[a];
        if (value > highest) {
            highest = value;
            best = a;
        }
    }
    return best;
}

static inline void reveal(const World *w, const double *truth, int64_t cut, double threshold, Observation *seen) {
    seen->offloaded = !(cut > 0 && truth[cut - 1] >= threshold);
    seen->answered_at = seen->offloaded ? w->exits : cut;
    seen->answer = truth[seen->answered_at - 1];
}

static inline void reveal_all(const World *w, const double *truth, const int16_t *guess, int64_t cut, Observation *seen) {
    for (int64_t j = 0; j < w->exits; j++) {
        const int shown = j < cut ? w->prefix || j == cut - 1 : seen->offloaded && j == w->exits - 1;
        seen->confidence[j] = shown ? truth[j] : NAN;
        seen->prediction[j] = shown ? guess[j] : -1.0;
    }
}

static inline void learn(Bandit *b, int64_t a, const Observation *seen) {
    b->pulls[a] += 1.0;
    b->mean[a] += (seen->answer - b->mean[a]) / b->pulls[a];
    b->share[a] += (seen->offloaded - b->share[a]) / b->pulls[a];
    b->root[a] = 1.0 / sqrt(b->pulls[a]);
}

static inline __attribute__((always_inline)) void play(
    const World *w, int64_t rounds, const int64_t *sample, const int64_t *condition, const int64_t *price, int whole, int ahead) {
    Bandit b = {0};
    Observation seen;
    const int64_t L = w->exits, columns = FIELDS + w->table;
    double *totals = w->totals;
    int64_t kept = 0, correct = 0, agreement = 0, offloads = 0;
    for (int64_t t = 0; t < rounds; t++) {
        if (ahead && t + AHEAD < rounds) {
            const int64_t soon = (condition[t + AHEAD] * w->samples + sample[t + AHEAD]) * L;
            __builtin_prefetch(w->confidence + soon), __builtin_prefetch(w->confidence + soon + L - 1);
            __builtin_prefetch(w->prediction + soon), __builtin_prefetch(w->prediction + soon + L - 1);
        }
        const int64_t s = sample[t], c = condition[t], p = price[t], at = (c * w->samples + s) * L;
        const double *quote = w->quotes + p * w->width;
        const int64_t a = t < w->arms ? t : best_arm(w, &b, quote, w->beta * sqrt(log((double)t)));
        const int64_t cut = w->cut[a], arm = w->index[a];
        reveal(w, w->confidence + at, cut, w->threshold[a], &seen);
        if (whole) {
            reveal_all(w, w->confidence + at, w->prediction + at, cut, &seen);
            seen.answer = seen.confidence[seen.answered_at - 1];
        }
        learn(&b, a, &seen);

        const double edge = quote[COSTS + cut], offload = seen.offloaded ? quote[COSTS + L + 1 + cut] : 0.0;
        const int16_t guess = w->prediction[at + seen.answered_at - 1];
        totals[REWARD] += w->confidence[at + seen.answered_at - 1] - quote[MU] * (edge + offload);
        totals[EDGE] += edge;
        totals[OFFLOAD] += offload;
        totals[REGRET] += w->gap[(c * w->prices + p) * w->table + arm];
        offloads += seen.offloaded;
        correct += guess == w->label[s];
        agreement += guess == w->prediction[at + L - 1];
        totals[MACS] += w->work[cut];
        totals[BYTES] += seen.offloaded * w->work[L + 1 + cut];
        totals[FIELDS + arm] += 1.0;
        if (kept < w->checkpoints && t + 1 == w->at[kept]) {
            totals[OFFLOADS] = offloads, totals[CORRECT] = correct, totals[AGREEMENT] = agreement;
            for (int64_t f = 0; f < columns; f++)
                w->kept[kept * columns + f] = totals[f];
            kept++;
        }
    }
    totals[OFFLOADS] = offloads, totals[CORRECT] = correct, totals[AGREEMENT] = agreement;
}

void ucb1(const World *w, int64_t rounds, const int64_t *sample, const int64_t *condition, const int64_t *price) {
    play(w, rounds, sample, condition, price, 0, 0);
}

void ucb1_rows(const World *w, int64_t rounds, const int64_t *sample, const int64_t *condition, const int64_t *price) {
    play(w, rounds, sample, condition, price, 1, 0);
}

void ucb1_ahead(const World *w, int64_t rounds, const int64_t *sample, const int64_t *condition, const int64_t *price) {
    play(w, rounds, sample, condition, price, 0, 1);
}

/* For orientation: UCB1 as the textbook prints it, on a matrix of rewards (rows, K); no world, no prices, no sums. */
void ucb1_textbook(int64_t rounds, int64_t arms, int64_t rows, const double *reward, double *pulls, double *sum) {
    for (int64_t t = 0; t < rounds; t++) {
        int64_t best = 0;
        if (t < arms) {
            best = t;
        } else {
            const double bonus = 2.0 * log((double)t);
            double highest = -INFINITY;
            for (int64_t a = 0; a < arms; a++) {
                const double value = sum[a] / pulls[a] + sqrt(bonus / pulls[a]);
                if (value > highest) {
                    highest = value;
                    best = a;
                }
            }
        }
        pulls[best] += 1.0;
        sum[best] += reward[(t % rows) * arms + best];
    }
}
