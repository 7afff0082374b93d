"""How Sphinx makes the site out of the pages that tools/site.py gathers; `make site` runs both."""

project = "Cachelab"
author = "the Cachelab contributors"
copyright = "Cachelab. Code: MIT. Text, figures and exercises: CC BY 4.0"
html_title = "Cachelab, the caching workbook"

extensions = ["myst_nb"]
smartquotes = False  # a notebook's words and options stay as they are written
exclude_patterns = ["files"]  # what is linked for download is no page

# A notebook is shown as it was built: nothing runs, and its stored outputs stand.
nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"
# myst-nb's own list would be fetched from elsewhere. Our one live explorer brings its script along.
nb_ipywidgets_js = {}
nb_output_stderr = "show"

# Notebooks are plain Markdown: what only MyST reads in it must not change a word of theirs.
myst_disable_syntax = ["myst_role", "myst_target", "myst_block_break", "myst_line_comment"]
myst_heading_anchors = 3

html_theme = "furo"
html_static_path = ["static"]
html_favicon = "static/favicon.svg"
html_css_files = ["site.css"]
html_js_files = ["site.js"]
if tags.has("diagrams"):  # type: ignore[name-defined]  # noqa: F821
    html_js_files.append("diagrams.js")
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#00588a",
        "color-brand-content": "#00588a",
        "color-brand-visited": "#5d4a8a",
    },
    "dark_css_variables": {
        "color-brand-primary": "#7cc4f0",
        "color-brand-content": "#7cc4f0",
        "color-brand-visited": "#bfa8f0",
    },
}
pygments_style = "a11y-light"
pygments_dark_style = "a11y-dark"
html_copy_source = False
html_show_sourcelink = False
html_use_index = False
html_domain_indices = False
