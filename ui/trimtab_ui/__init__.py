"""Trimtab's web face: a Streamlit app that talks to the HTTP API and to nothing else of Trimtab's."""
