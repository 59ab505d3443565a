"""The documentation site: docs/ and pages made of the registries, as a folder that the site generator reads."""
