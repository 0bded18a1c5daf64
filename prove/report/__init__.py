"""From recorded runs to claims: comparable blocks, tables, figures, one HTML file."""
