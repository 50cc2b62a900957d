"""MkDocs' hooks: pages fetch nothing, as what lets one search them on a disk lies beside them."""


def on_post_page(output, **_):
    # Material's offline plugin asks a server for it
    return output.replace("https://unpkg.com/iframe-worker/shim", "worker_on_disk.js")
