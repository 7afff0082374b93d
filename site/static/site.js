// Search in a book that was opened as files: a browser lets no page read another one from disk, so
// the results come without the excerpts that Sphinx would fetch for them.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
