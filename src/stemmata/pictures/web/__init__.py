"""Web: pictures as options of ECharts, and the page around them. Owns how they look there.

Whatever a person named goes into a page as JSON or as escaped text, never as markup or as code.
"""
