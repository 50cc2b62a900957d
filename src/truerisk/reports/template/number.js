// Numbers in words.

function digits(v, n = 4) {
  if (v === null || v === undefined) return "–";
  if (v === 0) return "0";
  const size = Math.abs(v);
  return size < 1e-4 || size >= 1e6 ? v.toExponential(n - 2) : String(+v.toPrecision(n));
}

// The decimal places that show two digits of a width.
function places(width) {
  return Math.min(8, Math.max(0, 1 - Math.floor(Math.log10(width))));
}

function withError([mean, error], scale = 1) {
  if (mean === null) return "–";
  if (!error) return digits(scale * mean);
  const p = places(scale * error);
  return `${(scale * mean).toFixed(p)} ± ${(scale * error).toFixed(p)}`;
}

function interval([mean, , low, high], scale = 1) {
  if (mean === null) return "–";
  if (low === null || high === low) return digits(scale * mean);
  const p = places(scale * (high - low));
  return `${(scale * mean).toFixed(p)} [${(scale * low).toFixed(p)}, ${(scale * high).toFixed(p)}]`;
}

function chance(p) {
  if (p === null) return "–";
  return p < 1e-4 ? "< 0.0001" : String(+p.toPrecision(2));
}

// Errors are shown in per cent.
const scaleOf = (metric) => (metric.startsWith("error/") ? 100 : 1);
const headingOf = (metric) => DATA.titles[metric] + (metric.startsWith("error/") ? ", %" : "");
