"""placeholder"""
def write_report(folder, bundles): 
    (folder/"report.html").write_text("x"); return folder/"report.html"
