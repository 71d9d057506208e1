"""One HTML document to look at: `*_page` builds a page of runs, plans or statuses, and `document` renders it.

It is a single file that loads nothing from elsewhere, can be read without JavaScript, and lists every job; its script
adds sorting, filtering and paging. The same input gives the same text.
"""
