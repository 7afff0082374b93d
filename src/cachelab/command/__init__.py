"""The command `cachelab`, and how JupyterLab is started."""
