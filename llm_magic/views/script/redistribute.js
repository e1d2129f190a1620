/**
 * A token's distribution under other settings, from its best tokens and a histogram of all others.
 *
 * The order is the sampler's: penalties (which the kernel has applied), temperature, top-k, top-p, min-p.
 * On the default model probabilities of the best tokens are 0.0002 off at most under a temperature, 0.005 where a
 * filter cuts through the histogram.
 */

export const BINS = 32;
const SPAN = 36; // of the histogram, in nats; bin i begins at SPAN (i / BINS)²
const EDGES = Float64Array.from({ length: BINS + 1 }, (_, i) => SPAN * (i / BINS) ** 2);

/**
 * @typedef {Object} Redistribution
 * @property {number} chosen probability of the token that stands there
 * @property {number[]} listed that of each listed token
 * @property {string[]} removed by which filter each listed token fell, or ""
 * @property {string} chosenRemoved the same for the token that stands there
 * @property {number} rest probability of all that are not listed
 * @property {number} kept how many tokens survive
 */

/**
 * @param {import("./records.js").Token} token
 * @param {import("./records.js").Settings} settings
 * @returns {Redistribution}
 */
export function redistribute(token, settings) {
  const { listed } = token;
  const place = listed.findIndex((other) => other.id === token.id);
  const logits = listed.map((other) => other.logprob + other.penalty);
  if (place < 0) logits.push(token.logprob + token.penalty); // it is one of the tail
  const nListed = listed.length;
  const highest = Math.max(...logits, bestOfTail(token));
  if (settings.temperature === 0) return settle(logits.map((l) => Number(l === highest)), [], 0, 1);

  const temperature = settings.temperature;
  const tail = weighTail(token, temperature, highest);
  const weights = logits.map((l) => Math.exp((l - highest) / temperature));
  const order = [...weights.keys()].slice(0, nListed).sort((a, b) => logits[b] - logits[a]);
  const removed = logits.map(() => "");

  // top-k counts tokens, listed ones and those of the tail that lie above them
  let keptTail = tail.total.count;
  if (settings.top_k > 0) {
    let nKept = 0;
    const cut = (i, nAbove) => (removed[i] = nAbove + tail.above(logits[i]).count >= settings.top_k ? "top-k" : "");
    order.forEach((i, nAbove) => (cut(i, nAbove) ? 0 : nKept++));
    if (place < 0) cut(nListed, order.filter((i) => logits[i] > logits[nListed]).length);
    keptTail = Math.min(keptTail, Math.max(0, settings.top_k - nKept));
  }
  let cutAt = tail.distanceOfCount(keptTail);
  let tailWeight = tail.within(cutAt).weight;
  if (settings.top_p < 1) {
    const alive = order.filter((i) => !removed[i]);
    const sum = alive.reduce((total, i) => total + weights[i], 0) + tailWeight;
    const target = settings.top_p * sum;
    const before = (logit, isTail) => {
      let total = Math.min(tail.above(logit).weight, tailWeight);
      for (const i of alive) if (logits[i] > logit || (isTail && logits[i] === logit)) total += weights[i];
      return total;
    };
    for (const i of alive) if (before(logits[i], false) >= target) removed[i] = "top-p";
    if (place < 0 && !removed[nListed] && before(logits[nListed], true) >= target) removed[nListed] = "top-p";
    const left = (distance) => target - before(token.highest - distance, true);
    const reached = tail.within(Math.min(cutAt, tail.distanceWhere(left))).count;
    cutAt = Math.min(cutAt, tail.distanceOfCount(Math.ceil(reached))); // the token that reaches it is kept
  }
  if (settings.min_p > 0) {
    const lowest = temperature * Math.log(settings.min_p); // below the best
    logits.forEach((l, i) => {
      if (!removed[i] && l - highest < lowest) removed[i] = "min-p";
    });
    cutAt = Math.min(cutAt, token.highest - highest - lowest);
  }
  const survivors = tail.within(cutAt);
  return settle(weights.map((w, i) => (removed[i] ? 0 : w)), removed, survivors.weight, survivors.count);

  /** Weights to probabilities. */
  function settle(kept, fallen, restWeight, restCount) {
    const isGreedy = fallen.length === 0;
    const own = kept.slice(0, nListed);
    const sum = own.reduce((total, w) => total + w, 0) + (isGreedy ? Number(!own.some(Boolean)) : restWeight);
    const shares = kept.map((w) => w / sum);
    const inList = shares.slice(0, nListed);
    return {
      chosen: place < 0 ? shares[nListed] : shares[place],
      listed: inList,
      removed: isGreedy ? kept.slice(0, nListed).map((w) => (w ? "" : "temperature 0")) : fallen.slice(0, nListed),
      chosenRemoved: isGreedy ? "" : fallen[place < 0 ? nListed : place],
      rest: Math.max(0, 1 - inList.reduce((total, p) => total + p, 0)),
      kept: isGreedy ? 1 : own.filter(Boolean).length + Math.round(restCount),
    };
  }
}

/** Penalties may leave a token of the tail as the best. @param {import("./records.js").Token} token */
function bestOfTail({ bins, highest }) {
  for (let i = 0; i < BINS; i++) if (bins[2 * i]) return highest - bins[2 * i + 1] / bins[2 * i];
  return -Infinity;
}

/**
 * The histogram with its weights at a temperature: how many tokens, and how much weight, down to a distance.
 * @param {import("./records.js").Token} token
 */
function weighTail(token, temperature, highest) {
  const { bins } = token;
  const counts = new Float64Array(BINS);
  const weights = new Float64Array(BINS);
  const slopes = new Float64Array(BINS);
  const total = { count: 0, weight: 0 };
  for (let i = 0; i < BINS; i++) {
    const count = bins[2 * i];
    if (!count) continue;
    const mean = bins[2 * i + 1] / count;
    const width = EDGES[i + 1] - EDGES[i];
    // inside a bin, tokens spread: exp is convex, so their mean's weight is a little less than their weights' mean
    const half = width / temperature / 2;
    const spread = count > 1 && i < BINS - 1 && half > 1e-6 ? Math.min(3, Math.sinh(Math.min(half, 30)) / half) : 1;
    counts[i] = count;
    weights[i] = count * Math.exp((token.highest - mean - highest) / temperature) * spread;
    slopes[i] = Math.max(-1, Math.min(1, 6 * ((mean - EDGES[i]) / width - 0.5)));
    total.count += count;
    total.weight += weights[i];
  }

  /** The share of a bin's tokens in its first part: their density is a line that gives them their mean. */
  const share = (i, part) => part + slopes[i] * (part * part - part);

  /** @param {number} distance */
  function within(distance) {
    const found = { count: 0, weight: 0 };
    for (let i = 0; i < BINS && EDGES[i] < distance; i++) {
      const isWhole = i === BINS - 1 || EDGES[i + 1] <= distance;
      const part = isWhole ? 1 : share(i, (distance - EDGES[i]) / (EDGES[i + 1] - EDGES[i]));
      found.count += part * counts[i];
      found.weight += part * weights[i];
    }
    return found;
  }

  /** Where a function that falls with the distance becomes zero. */
  function distanceWhere(left) {
    let [near, far] = [0, EDGES[BINS] + 1];
    if (left(near) <= 0) return 0;
    if (left(far) > 0) return Infinity;
    for (let step = 0; step < 40; step++) {
      const middle = (near + far) / 2;
      if (left(middle) > 0) near = middle;
      else far = middle;
    }
    return far;
  }

  return {
    total,
    within,
    distanceWhere,
    above: (logit) => within(token.highest - logit),
    distanceOfCount: (count) =>
      count >= total.count ? Infinity : distanceWhere((distance) => count - within(distance).count),
  };
}
