"""Pictures: plain numbers that can be looked at, as a page, a figure or characters. Owns how they look.

It knows no version and no file: who has the numbers hands them in, from the floors above. Imported when a
picture is asked for, and not before.
"""
