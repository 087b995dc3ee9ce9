"""Blinded reader studies in the browser: personal link, consent, trials, finish."""

import os

# Gradio reads these at import. A study on a hospital network calls nobody.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
