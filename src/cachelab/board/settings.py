"""The variable of the environment that names the class board; light, since the command reads it."""

URL_VARIABLE = "CACHELAB_CLASS_URL"
