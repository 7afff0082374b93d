// What RFC 5861 section 3 and RFC 9111 section 4.2.4 ask of stale-while-revalidate, which release
// 0.4.5 of the suite does not look at; in the suite's own form. Its pause is three seconds.
function stale (id, cacheControl, expected, name, kind = 'required') {
  return {
    id: `swr-${id}`,
    name,
    kind,
    requests: [
      { response_headers: [['Cache-Control', cacheControl]], setup: true, pause_after: true },
      { expected_type: expected }
    ]
  }
}

export default {
  id: 'swr',
  name: 'Stale While Revalidate',
  tests: [
    stale('in-window', 'max-age=1, stale-while-revalidate=3600', 'cached',
      'An optimal HTTP cache serves a stale response within its `stale-while-revalidate` window', 'optimal'),
    stale('past-window', 'max-age=1, stale-while-revalidate=1', 'not_cached',
      'HTTP cache must not serve a stale response past its `stale-while-revalidate` window'),
    stale('without', 'max-age=1', 'not_cached',
      'HTTP cache must not serve a stale response without `stale-while-revalidate`'),
    stale('must-revalidate', 'max-age=1, stale-while-revalidate=3600, must-revalidate', 'not_cached',
      'HTTP cache must not serve a stale response when prohibited by `must-revalidate`'),
    stale('proxy-revalidate', 'max-age=1, stale-while-revalidate=3600, proxy-revalidate', 'not_cached',
      'HTTP cache must not serve a stale response when prohibited by `proxy-revalidate`'),
    stale('s-maxage', 's-maxage=1, stale-while-revalidate=3600', 'not_cached',
      'HTTP cache must not serve a stale response when prohibited by `s-maxage`')
  ]
}
